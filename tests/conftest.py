"""What all tests share: how long the generated ones search, and where real data lies."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# In CI every run draws the same examples; the nightly run draws new ones, and many more.
settings.register_profile("ci", derandomize=True, database=None, deadline=None, print_blob=True)
settings.register_profile("nightly", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("ESPALIER_HYPOTHESIS", "ci"))

# No test downloads anything, or leaves anything in the user's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["ESPALIER_CACHE"] = ""


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Return the folder of real data: ESPALIER_DATA, or ../shared/data beside the repository."""
    beside = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("ESPALIER_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set ESPALIER_DATA to its folder")
    return folder.resolve()
