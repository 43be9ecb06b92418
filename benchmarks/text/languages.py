"""Accuracy on a hundred short sentences in each of five languages, ingraph beside scikit-learn, on the same splits.

    .venv/bin/python -m benchmarks.text.languages [--splits 3] [--train 100]

Sentences are made of templates and word lists: who did or got what, and an opinion, good, bad or neither. Words of the
opinions come with and without a negation, and things and people say nothing of the label. ingraph's side is a config
without any option; scikit-learn's a logistic regression on tf-idf of sequences of one to four characters.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

LABELS = ("bad", "good", "neither")


@dataclass(frozen=True)
class Language:
    """Parts of sentences.

    Attributes:
        order: the template, of `who`, `thing` and `opinion`.
        who: people.
        things: what the sentence is about.
        opinions: label -> what is said of it.
        ends: marks at the end.
    """

    order: str
    who: Sequence[str]
    things: Sequence[str]
    opinions: dict[str, Sequence[str]]
    ends: Sequence[str]


LANGUAGES = {
    "Japanese": Language(
        "{who}は{thing}が{opinion}{end}",
        ["私", "母", "友達", "先生", "弟", "店員", "隣の人", "姉"],
        ["映画", "料理", "この本", "新しい店", "駅前の宿", "音楽", "あの公園", "部屋", "授業", "電車"],
        {
            "good": ["とても良かったと言った", "大好きです", "面白いと思った", "悪くなかった", "嫌いではない"],
            "bad": ["とても悪かったと言った", "大嫌いです", "面白くないと思った", "良くなかった", "好きではない"],
            "neither": ["何なのか聞いた", "どこか知っている", "いつ始まるか調べた", "必要かもしれない"],
        },
        ["。", "\uff01", "", "…"],
    ),
    "Chinese": Language(
        "{who}觉得{thing}{opinion}{end}",
        ["我", "妈妈", "朋友", "老师", "弟弟", "店员", "邻居", "姐姐"],
        ["这部电影", "这道菜", "那本书", "新开的店", "车站旁的酒店", "音乐", "那个公园", "房间", "课程", "火车"],
        {
            "good": ["非常好", "很有意思", "一点也不差", "值得再来", "让人高兴"],
            "bad": ["非常差", "没有意思", "一点也不好", "不值得再来", "让人不高兴"],
            "neither": ["在城里", "明天开始", "可能有用", "和昨天一样"],
        },
        ["。", "\uff01", "", "\uff0c是吗\uff1f"],
    ),
    "Arabic": Language(
        "{who} {thing} {opinion}{end}",
        ["قال أبي إن", "تقول أمي إن", "قال صديقي إن", "قالت المعلمة إن", "يقول أخي إن", "قال جارنا إن", "تقول أختي إن"],
        ["الفيلم", "الطعام", "هذا الكتاب", "المحل الجديد", "الفندق", "الحديقة", "الغرفة", "الدرس", "القطار"],
        {
            "good": ["جيد جدا", "رائع حقا", "ليس سيئا", "يستحق الزيارة", "ممتع للجميع"],
            "bad": ["سيئ جدا", "ممل حقا", "ليس جيدا", "لا يستحق الزيارة", "غير ممتع"],
            "neither": ["في المدينة", "يبدأ غدا", "كما كان أمس", "قد يكون مفيدا"],
        },
        [".", "!", "", "؟"],
    ),
    "Hindi": Language(
        "{who} {thing} {opinion}{end}",
        ["मुझे", "माँ को", "मेरे दोस्त को", "शिक्षक को", "भाई को", "पड़ोसी को", "बहन को"],
        ["यह फिल्म", "खाना", "वह किताब", "नई दुकान", "होटल का कमरा", "संगीत", "वह बाग", "कक्षा", "रेलगाड़ी"],
        {
            "good": ["बहुत अच्छी लगी", "पसंद आया", "बुरा नहीं लगा", "फिर से चाहिए", "मज़ेदार लगा"],
            "bad": ["बहुत बुरी लगी", "पसंद नहीं आया", "अच्छा नहीं लगा", "फिर कभी नहीं चाहिए", "उबाऊ लगा"],
            "neither": ["शहर में मिला", "कल मिलेगा", "कल जैसा लगा", "के बारे में पता है"],
        },
        ["।", "!", "", "?"],
    ),
    "German": Language(
        "{who} {thing} {opinion}{end}",
        ["Mir hat", "Meiner Mutter hat", "Unserem Lehrer hat", "Dem Nachbarn hat", "Ihrer Schwester hat", "Uns hat"],
        ["der Film", "das Essen", "dieses Buch", "der neue Laden", "das Hotelzimmer", "die Musik", "die Bahnfahrt"],
        {
            "good": ["sehr gut gefallen", "große Freude gemacht", "gar nicht missfallen", "nie geschadet"],
            "bad": ["gar nicht gefallen", "keine Freude gemacht", "sehr missfallen", "nur geschadet"],
            "neither": ["gestern noch gefehlt", "früher einmal gehört", "zwei Stunden gedauert", "niemand gezeigt"],
        },
        [".", "!", "", "…"],
    ),
}


def sentences(language: str, count: int, seed: int) -> tuple[list[str], list[str]]:
    """Different sentences, and their labels; two sets of the same language and other seeds may share some.

    Args:
        language: one of LANGUAGES.
        count: how many.
        seed: of the draw.
    """
    parts, draw = LANGUAGES[language], np.random.default_rng(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        label = LABELS[len(found) % len(LABELS)]
        chosen = {"who": parts.who, "thing": parts.things, "opinion": parts.opinions[label], "end": parts.ends}
        values = {name: words[int(draw.integers(len(words)))] for name, words in chosen.items()}
        found.setdefault(parts.order.format(**values), label)
    return list(found), list(found.values())


def character_ngrams(texts: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> list[str]:
    """What scikit-learn's logistic regression on sequences of one to four characters says of `test`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True), LogisticRegression(max_iter=1000)
    )
    return [str(label) for label in model.fit(list(texts), list(labels)).predict(list(test))]


def by_default(texts: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> list[str]:
    """What a model of a config without any option says of `test`, by the signature that is served."""
    import tempfile

    import tensorflow as tf

    from benchmarks.harness.pipelines import transform_graph
    from components.table_example_gen.facts import choice_of_terms
    from serving.signatures.common import VOCABULARY
    from trainers.artifacts import predict_split
    from trainers.splits import TransformGraph, read_transformed_split
    from trainers.text.options import NgramOptions
    from trainers.text.train import fit_classifier, read_training_split
    from transform.options import LabelOptions, TextOptions
    from transform.text import preprocessing_fn

    preprocessing = TextOptions(label=LabelOptions(column="label")).with_terms(choice_of_terms(texts).kind)
    spec = {name: tf.io.VarLenFeature(tf.string) for name in ("text", "label")}
    trainer = NgramOptions()
    with tempfile.TemporaryDirectory() as folder:
        train_file = _write(f"{folder}/train.gz", texts, labels)
        # The label is not looked at, and must be one that is known.
        test_file = _write(f"{folder}/test.gz", test, [labels[0]] * len(test))
        given = {"preprocessing": preprocessing.model_dump_json()}
        graph = transform_graph(preprocessing_fn, given, spec, train_file, folder)
        names = [label.decode() for label in graph.vocabulary_by_name(VOCABULARY)]
        transform = TransformGraph(graph)
        split = read_training_split([train_file], transform, trainer)
        classifier = fit_classifier(split, graph, len(names), trainer)
        held_out = read_transformed_split([test_file], transform, classifier.inputs)
    return predict_split(classifier.model, held_out, names).labels


def _write(path: str, texts: Sequence[str], labels: Sequence[str]) -> str:
    import tensorflow as tf

    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for text, label in zip(texts, labels, strict=True):
            example = tf.train.Example()
            example.features.feature["text"].bytes_list.value.append(text.encode())
            example.features.feature["label"].bytes_list.value.append(label.encode())
            writer.write(example.SerializeToString())
    return path


def compared(language: str, seed: int, train: int = 100) -> tuple[float, float]:
    """The accuracy of ingraph by default and of scikit-learn, on 100 sentences that neither learned from."""
    texts, labels = sentences(language, train + 100, seed)
    order = np.random.default_rng(seed).permutation(len(texts))
    learned, test = order[:train], order[train:]
    parts = [[texts[row] for row in learned], [labels[row] for row in learned], [texts[row] for row in test]]
    truth = np.array([labels[row] for row in test])
    ours, theirs = (float(np.mean(np.array(told(*parts)) == truth)) for told in (by_default, character_ngrams))
    return ours, theirs


def main() -> None:
    """Print the accuracy of both for each language."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--train", type=int, default=100)
    options = parser.parse_args()
    from pipeline.runners.beam_speedups import apply_beam_speedups

    apply_beam_speedups()
    print(f"{'language':<10} ingraph scikit-learn")
    for language in LANGUAGES:
        found = np.mean([compared(language, seed, options.train) for seed in range(options.splits)], axis=0)
        print(f"{language:<10} {found[0]:7.3f} {found[1]:12.3f}", flush=True)


if __name__ == "__main__":
    main()
