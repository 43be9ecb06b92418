"""The reviews: time of a whole pipeline beside a script of scikit-learn's.

    .venv/bin/python -m benchmarks.text.pipelines

The script reads the same file, fits a logistic regression on tf-idf of words and pairs of words to four fifths of the
texts, and classifies the rest; it checks nothing and leaves nothing that could be served.
"""

from __future__ import annotations

import argparse
import time

from sklearn.model_selection import train_test_split

from benchmarks.harness.pipelines import beside_script, timed_run
from benchmarks.harness.running import own_process, report


def main() -> None:
    """Print the table."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    seconds = own_process(script_seconds)
    report("reviews: a whole pipeline", beside_script(own_process(timed_run, "reviews"), "scikit-learn", seconds))


def script_seconds() -> float:
    """Seconds from the file to the probabilities of a fifth of it."""
    from benchmarks.text.quality import read_texts, scikit_learn_probabilities
    from pipeline import demo_data

    path = demo_data.fetch("reviews")
    started = time.perf_counter()
    texts, labels = read_texts(path)
    train, test, learned, _ = train_test_split(texts, labels, test_size=0.2, random_state=0)
    scikit_learn_probabilities(train, learned, test)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
