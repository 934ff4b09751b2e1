"""The line above the pictures."""

from examples.avatars.make import make_dataset
from lib_pivotal.data.dataset import scan
from lib_pivotal.ui.dataset_html import summary


def test_the_line_tells_the_layout_with_its_parts(tmp_path):
    make_dataset(tmp_path / "kgrid", layout="kgrid", words=5, pictures=4)
    line = summary(scan(tmp_path / "kgrid"), 5, 0)
    assert "read as kgrid&#x27;s tree" in line and line.endswith(": 5 concepts, 2 image types</div>")
