"""Say what is on a photograph: python onnx_example.py model.onnx photo.jpg (needs onnxruntime, pillow and numpy)."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1])
notes = session.get_modelmeta().custom_metadata_map
order = notes["channel_order"]  # RGB, BGR, or L: grey
mode = "L" if order == "L" else "RGB"
image = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert(mode)
for step in json.loads(notes["steps"]):
    w, h = image.size
    x, y = [side * step["shorter_side"] // min(w, h) if "shorter_side" in step else 0 for side in (w, h)]
    x, y = step.get("width", x), step.get("height", y)
    if step["step"] == "crop":
        x, y = [min(w, h) * step["share"]] * 2 if "share" in step else (x, y)
        left, top = round((w - x) / 2), round((h - y) / 2)
        image = image.crop((left, top, left + int(x), top + int(y)))
    elif step["library"] == "pillow":
        image = image.resize((x, y), Image.Resampling[step["interpolation"].upper()])
    else:  # OpenCV looks at the nearest pixels only, however much smaller the image becomes; so does transform
        method = Image.Resampling[step["interpolation"].upper()]
        image = image.transform((x, y), Image.Transform.AFFINE, (w / x, 0, 0, 0, h / y, 0), method)
pixels = np.atleast_3d(image)[..., [mode.index(channel) for channel in order]]
if notes["normalisation"] == "outside":
    pixels = (pixels - np.array(json.loads(notes["mean"]))) / json.loads(notes["std"])
    pixels = pixels.transpose(2, 0, 1).astype(np.float32)
probabilities = session.run(None, {"images": pixels[None]})[0][0]
for place in np.argsort(-probabilities)[:3]:
    print(f"{probabilities[place]:.4f} {json.loads(notes['class_names'])[place]}")
