"""Commands in a Chinese shell: each line that they print is Chinese, results and errors; logs stay English."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chinese import english_of_line
from dag import QUICK, Finished, photograph, snakemake

pytestmark = pytest.mark.long
RUN = "results/small/quick/seed0"
#: Of others: the machine and its programs, and what Snakemake says of its profile.
OF_OTHERS = re.compile(r"^(系统|python|torch|slurm|分区|gpu \d|Using profile) ")
#: What the library says of a server that is gone.
REFUSED = re.compile(r"HTTPConnection\(.*refused( \(\d attempts\))?")
CHINESE = re.compile("[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def project(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder of a finished run, with a few more images."""
    folder = tmp_path_factory.mktemp("chinese") / "project"
    shutil.copytree(finished[0], folder, symlinks=True)
    classes = (folder / "results/small/classes.txt").read_text(encoding="utf-8").splitlines()
    for label, name in enumerate(classes[:3]):
        for index in range(4):
            file = folder / "new" / name / f"{index}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photograph(label, 300 + index))
    (folder / "new/durian").mkdir()
    (folder / "new/durian/0.jpg").write_bytes(photograph(7, 7))
    (folder / "new/broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
    return folder


def typed(project: Path, command: str, *words: str, locale: str = "zh_CN.UTF-8") -> tuple[int, list[str]]:
    """Return the status of a command, and the lines that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"scripts.{command}", *words], cwd=project, env={**os.environ, "LC_ALL": locale},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("command", "words", "status", "shown"),
    [
        (
            "predict",
            ["--run", RUN, "--images", "new"],
            0,
            "预测了 13 张图像，跳过 1 个；1 个无法解码；忽略 0 个",
        ),
        ("predict", ["--run", RUN, "--images", "new"], 0, "替换了 13 张图像的结果；如要都保留"),
        ("predict", ["--onnx", f"{RUN}/model.onnx", "--images", "new", "--no-draw"], 0, "个没有把握；"),
        ("predict", ["--run", RUN, "--images", "none"], 1, "--images：none：没有这个文件或文件夹；请检查路径"),
        ("predict", ["--run", "results/none", "--images", "new"], 1, "请给出一次完成的运行"),
        ("evaluate_run", ["--run", RUN, "--data", "new"], 0, "略去 1 张图像，其类别为该运行所未知：durian"),
        ("evaluate_run", ["--run", RUN, "--data", "new/durian"], 1, "错误："),
        ("bundle", ["--run", RUN], 0, "公开之前请注意：provenance.json 写有机器的信息"),
        ("bundle", ["--run", "results/none"], 1, "错误："),
        ("verify", ["--run", RUN, "--quick"], 0, "全部与记录一致"),
        ("verify", ["--run", "results", "--quick"], 0, "全部与记录一致"),
        ("verify", ["--run", "new", "--quick"], 1, "其中没有任何记录"),
        ("verify", ["--run", RUN], 0, "完全相同"),
        ("repeat", ["--archive", "results/small/small-quick-seed0.tar"], 1, "错误："),
        ("repeat", ["--archive", "new/0.tar"], 1, "没有这个文件：请给出 `make bundle` 生成的打包文件"),
        ("watch", ["--once"], 0, "运行已完成"),
        ("watch", ["--once", "--dataset", "none"], 1, "没有数据集 none 的运行：现有 small"),
        ("preview", ["--run", RUN], 0, "preview.png"),
        ("preview", ["--run", "results/none"], 1, "没有这个配置"),
        ("check_settings", ["settings.yaml"], 0, ""),
        ("check_settings", ["none.yaml"], 1, "没有这个配置文件"),
        ("snakemake_report", ["--config", "settings.yaml"], 0, "请在浏览器中打开，无需网络"),
        ("track", ["--run", RUN, "--to", "mlflow"], None, ""),
        ("clean", ["--run", "results/none"], 1, "没有这个文件夹"),
        ("clean", ["--run", f"{RUN}/work"], 1, "既不是运行，也不是实验或数据集"),
        ("doctor", [], None, "共 "),
        ("doctor", ["--config", "none.yaml"], 1, "没有这个配置文件"),
    ],
)
def test_each_line_is_chinese(project: Path, command: str, words: list[str], status: int | None, shown: str) -> None:
    ended, lines = typed(project, command, *words)
    assert status in (None, ended), lines
    assert shown in "\n".join(lines), lines
    english = [line for line in lines if english_of_line(REFUSED.sub("", line)) and not OF_OTHERS.match(line)]
    assert english == [], "\n".join(lines)


def test_what_is_removed_is_told_in_chinese(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project / "results/small/quick", tmp_path / "results/small/quick")
    status, lines = typed(tmp_path, "clean", "--run", RUN)
    assert status == 0 and lines[-1] == "已删除；下次 `make run` 会重新生成它，或生成不含它的排行榜和报告"


def test_a_run_in_a_chinese_shell_speaks_chinese_and_its_logs_english(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        for index in range(10):
            file = tmp_path / "photos" / name / f"{index}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(photograph(label, index))
    config = {"dataset": {"name": "small", "source": {"path": "photos"}}, "experiments": {"quick": QUICK}}
    done = snakemake(tmp_path, config, environment={"LANG": "zh_CN.UTF-8", "LC_ALL": ""}, is_detailed=False)
    assert done.returncode == 0, done.stdout
    assert "训练了 1/1 轮" in done.stdout and "报告：results/small/report.html" in done.stdout
    assert [line for line in done.stdout.splitlines() if english_of_line(line) and not OF_OTHERS.match(line)] == []
    logs = [path for kind in ("log", "json") for path in (tmp_path / "logs").rglob(f"*.{kind}")]
    assert len(logs) > 10
    assert [path.name for path in logs if CHINESE.search(path.read_text(encoding="utf-8"))] == []
