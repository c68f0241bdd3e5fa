"""What pyproject.toml can't say: the files of configs/ are installed as runners/configs/."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cnn*", "runners*"]), "runners.configs", "hydra_plugins.cnn_from_scratch"],
    package_dir={"runners.configs": "configs"},
    package_data={"runners.configs": ["**/*.yaml"], "runners.data": ["mnist/*"], "runners.reports": ["assets/*"]},
)
