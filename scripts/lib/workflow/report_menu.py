"""How report.html shows a file: its caption, its place in the menu, and the menu's words in each language."""

from __future__ import annotations

from typing import Any

from scripts.lib.base.environment import ROOT
from scripts.lib.settings.schema import Settings

#: The texts of the report, a folder for each language.
CAPTIONS = ROOT / "scripts" / "report" / "captions"

CHINESE = {
    "Data": "数据",
    "Leaderboard": "排行榜",
    "Runs": "各次运行",
    "seed": "种子",
    "fold": "折",
    "what": "内容",
    "table": "表格",
    "figure": "图",
    "comparisons": "两两比较",
    "audit of the images": "图像检查",
    "metrics of each class": "每个类别的指标",
    "confusion matrix": "混淆矩阵",
    "classes, the worst first": "各类别，最差的在前",
    "precision-recall, ROC and top-k curves": "精确率-召回率、ROC 与 top-k 曲线",
    "calibration": "校准",
    "accuracy against confidence": "准确率与置信度",
    "the most confident errors": "最自信的错误",
    "map of the test images": "测试图像的分布图",
    "what the model looks at (Grad-CAM)": "模型在看哪里（Grad-CAM）",
    "the model as ONNX": "ONNX 模型",
    "layers, parameters, FLOPs": "网络层、参数量与 FLOPs",
    "model card": "模型卡",
    "training curves": "训练曲线",
    "config and environment": "配置与环境",
}


#: What the report shows of a run, in the order in which one reads it; Snakemake sorts by the words themselves.
ORDER = (
    "model card",
    "confusion matrix",
    "classes, the worst first",
    "the most confident errors",
    "what the model looks at (Grad-CAM)",
    "map of the test images",
    "calibration",
    "accuracy against confidence",
    "precision-recall, ROC and top-k curves",
    "training curves",
    "layers, parameters, FLOPs",
    "the model as ONNX",
    "metrics of each class",
    "config and environment",
)


def label(words: str, language: str) -> str:
    """Return *words* in *language*, ``en`` or ``zh``; those of ORDER with their number in front.

    Raises
    ------
    KeyError : they have no translation yet.
    """
    number = f"{ORDER.index(words) + 1:02} " if words in ORDER else ""
    return number + (CHINESE[words] if language == "zh" else words)


class ReportMenu:
    """The report of one configuration, in its language."""

    def __init__(self, settings: Settings) -> None:
        self.language = settings.report.language
        self.folds = settings.dataset.split.folds

    def caption(self, name: str) -> str:
        """Return the file of the report's text called *name*; whole, since each Snakefile has a folder of its own."""
        return str(CAPTIONS / self.language / f"{name}.rst")

    def shown(self, caption: str, what: str, category: str = "Runs") -> dict[str, Any]:
        """Return how the report shows a file, for Snakemake's report().

        Parameters
        ----------
        caption : name of its text.
        what : the file in a few words, one of CHINESE.
        category : ``Runs`` puts it below its experiment, with seed and fold.
        """
        words = {label("what", self.language): label(what, self.language)}
        shown: dict[str, Any] = {"caption": self.caption(caption), "category": label(category, self.language)}
        if category != "Runs":
            return shown | {"labels": words}
        run = {label(name, self.language): f"{{{name}}}" for name in ("seed", "fold") if name == "seed" or self.folds}
        return shown | {"subcategory": "{experiment}", "labels": {**run, **words}}
