"""ingraph as an installable package: `pip install .` gives the imports and the console script `ingraph`."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="ingraph",
    version="0.1.0",
    description="TFX pipelines whose exported models take raw data and answer with labels",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["pipeline*", "components*", "transform*", "trainers*", "serving*"]),
    package_data={
        "": ["*.pbtxt"],
        "components.run_report": ["templates/*"],
        "serving.server.playground": ["page/*"],
        "trainers": ["imagenet_labels.txt"],
    },
    install_requires=[
        "tfx[kfp]~=1.21.0",
        "tensorflow~=2.21.0",
        "tensorflow-transform~=1.21.0",
        # tfx asks for <0.16, which TensorFlow 2.21 cannot import; requirements.lock overrides that to 0.16.1.
        "tensorflow-hub",
        "apache-beam[gcp]~=2.77.0",
        "tensorflow-serving-api>=2.19.1,<2.20",
        "ml-metadata~=1.21.0",
        "keras~=3.15",
        "numpy~=2.0",
        "ml_dtypes",
        "pyarrow",
        "protobuf>=6,<7",
        "grpcio",
        "grpcio-health-checking",
        "grpcio-reflection",
        "prometheus-client",
        "aiohttp~=3.9",
        "orjson~=3.9",
        "requests",
        "google-cloud-storage",
        "click~=8.1",
        "rich>=13",
        "Jinja2~=3.1",
        "matplotlib~=3.9",
        "APScheduler~=3.11",
        "pydantic~=2.7",
        "PyYAML~=6.0",
        # tensorflow-hub still imports pkg_resources.
        "setuptools<81",
    ],
    extras_require={
        "dev": [
            "axe-playwright-python",
            "check-jsonschema",
            "cronsim",
            "cryptography",
            "hypothesis",
            "kubernetes-validate",
            "mypy",
            "playwright",
            "pytest",
            "ruff",
            "scikit-learn",
            "types-PyYAML",
            "types-requests",
            "types-protobuf",
        ],
    },
    entry_points={"console_scripts": ["ingraph = pipeline.cli:main"]},
)
