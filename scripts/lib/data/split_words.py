"""How people call train, val and test, in folders and in tables: ``training_set``, ``Validation Data``, 测试集."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

#: The words of each split, in the languages in which data sets are published.
WORDS = {
    "train": """train training trainings trainval trains trn tren trening treningowy treningowe uczacy trenink
        trenovaci traning entrenamiento entrenar entrainement apprentissage treino treinamento addestramento
        allenamento antrenare aprendizaje træning traening lernen lern treenaus opetus tanito tanulo treniranje ucenje
        trenovanie mokymas apmaciba тренувальний egitim latih latihan pelatihan huanluyen koulutus обучение обучающая
        обучающие обучающий тренировка тренировочная тренировочные тренировочный трейн навчання навчальна тренування
        εκπαιδευση תדריב אימון تدريب آموزش प्रशिक्षण প্রশিক্ষণ பயிற்சி ฝึก 训练 訓練 学習
        トレーニング 教師 학습 훈련 트레이닝""",
    "val": """val vali valid validate validation validations dev devel develop development eval evaluate evaluation
        publictest validacion validacao validazione convalida validierung validierungs validatie validasi validering
        validare validace validacni validointi dogrulama walidacja walidacyjny walidacyjne kiemdinh валидация
        валидационная валидационные валидационный проверка проверочная проверочный валідація перевірка επικυρωση תיקוף
        تحقق सत्यापन 验证 驗證 校验 検証 バリデーション 검증""",
    "test": """test tests testing tst testen testaus prufung pruf testiranje testovanie testavimas ujian holdout
        heldout privatetest prueba pruebas teste testes prova testowy testowe testowa testovaci testi teszt uji
        pengujian kiemtra тест тестовая тестовые тестовый тестирование тестування тестовий δοκιμη בדיקה מבחן اختبار
        آزمون परीक्षण পরীক্ষা சோதனை ทดสอบ 测试 測試 テスト 試験 評価 테스트 시험 평가""",
}
#: What stands beside such a word and says nothing.
NOISE = """set sets data dataset datasets image images img imgs picture pictures pic pics photo photos sample samples
    split splits subset partition part folder dir files jpg jpeg png all the of for de do da di des daten datensatz
    satz bilder conjunto datos dados dati imagenes imagens imagini ensemble jeu donnees zbior sett данные данных
    выборка набор изображения 集 组 数据集 数据 數據 資料 用 图片 图像 圖片 样本 文件夹
    データ データセット セット 画像 用画像 ชุด 데이터 데이터셋 세트 셋 이미지 용"""
#: Of the words of val and test, those that may well be a class where no other split stands beside them.
ALSO_CLASSES = frozenset(
    ["valid", "dev", "devel", "develop", "development", "eval", "evaluate", "evaluation", "prova", "prueba", "pruebas"]
)


class SplitName(NamedTuple):
    """A name that holds the word of one split; ``rest``: what else it says, such as the data set's name."""

    split: str
    word: str
    rest: tuple[str, ...]

    @property
    def is_no_class(self) -> bool:
        """Whether it is a split also where no other one stands beside it: a *train* may be a vehicle."""
        has_words = any(not token.isdigit() for token in self.rest)
        return self.split != "train" and self.word not in ALSO_CLASSES and not has_words


def plain(text: str) -> str:
    """Return *text* without accents and capitals, so that names are compared as people read them."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFC", "".join(char for char in decomposed if unicodedata.category(char)[0] != "M"))


SPLIT_OF = {plain(word): split for split, words in WORDS.items() for word in words.split()}


def _any_of(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_noise = {plain(word) for word in NOISE.split()}
# Short words are no part of a longer one: strain and detest are no splits.
_glued = _any_of(word for word in _noise if len(word) > 2 or not word.isascii())
SPLIT_WORD = re.compile(f"(?:{_glued})*({_any_of(SPLIT_OF)})s?(?:{_glued})*")
ONLY_NOISE = re.compile(_any_of(_noise) + f"|(?:{_glued})+")


@lru_cache(maxsize=65536)  # of the same folders again and again
def read_split_name(name: str) -> SplitName | None:
    """Return the split that *name* is called by, and what else it says; None where it names none, or several.

    >>> read_split_name("Validation Data"), read_split_name("seg_train"), read_split_name("trainstation")
    (SplitName(split='val', word='validation', rest=()), SplitName(split='train', word='train', rest=('seg',)), None)
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    tokens = re.findall(r"[^\W\d_]+|\d+", plain(spaced))
    whole = SPLIT_OF.get("".join(tokens))  # of two words, such as PublicTest
    if whole:
        return SplitName(whole, "".join(tokens), ())
    words, rest = [], []
    for token in tokens:
        if match := SPLIT_WORD.fullmatch(token):
            words.append(match[1])
        elif not ONLY_NOISE.fullmatch(token):
            rest.append(token)
    splits = {SPLIT_OF[word] for word in words}
    if splits == {"train", "val"}:  # what both are taken from
        splits = {"train"}
    return SplitName(splits.pop(), words[0], tuple(rest)) if len(splits) == 1 else None


def folder_splits(folders: Collection[tuple[str, ...]]) -> tuple[dict[str, str], bool]:
    """Return the splits that first folders are called as, and whether all of *folders* are in one: train and more.

    Folders with other words in their names are none, unless all have the same.
    """
    tops = {folder[0] for folder in folders if folder}
    read = {top: name for top in tops if (name := read_split_name(top))}
    alike = len({name.rest for name in read.values()}) == 1
    splits = {top: name.split for top, name in read.items() if alike or not name.rest}
    return splits, splits.keys() == tops and all(folders) and "train" in splits.values()
