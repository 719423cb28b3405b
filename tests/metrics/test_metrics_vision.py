"""DINOv2 and CLIP spaces on small stand-ins of the right formats, and downloads from a local server."""

import hashlib
import http.client
import http.server
import threading
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from bench.errors import BenchError, UsageError
from bench.files.patience import PAUSES
from bench.metrics import get_space, weights
from bench.metrics.vision import VisionSpace

SHAPE = (3, 32, 32)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setenv("SAMPLER_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub"


@pytest.fixture
def images():
    return torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def place(hub, monkeypatch, file):
    """Let the file in its place be the published one."""
    path = hub / "checkpoints" / file.name
    content = path.read_bytes()
    known = replace(file, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(f"bench.metrics.vision.{'CLIP' if 'clip' in file.name else 'DINOV2'}", known)


def test_clip_features_are_those_of_torch_fidelity(hub, images, monkeypatch):
    clip = pytest.importorskip("torch_fidelity.feature_extractor_clip")

    class Archive(clip.CLIPVisual):
        def __init__(self):
            super().__init__(768, 336, 1, 64, 112)
            self.text_projection = torch.nn.Parameter(torch.zeros(2, 768))

        def forward(self, x):
            return self.visual(x) + self.text_projection.sum()

    torch.manual_seed(0)
    path = hub / "checkpoints" / weights.CLIP.name
    torch.jit.trace(Archive().eval(), torch.rand(1, 3, 336, 336)).save(str(path))
    place(hub, monkeypatch, weights.CLIP)

    mine = get_space("clip_l14_336", SHAPE)
    extractor = clip.FeatureExtractorCLIP(
        "clip-vit-l-14-336px", ["clip"], feature_extractor_weights_path=str(path)
    )
    with torch.inference_mode():
        theirs = extractor(images)[0]
    assert mine.dim == 768
    torch.testing.assert_close(mine(images), theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine(images[:, :1]), mine(images[:, :1].repeat(1, 3, 1, 1)))


HUBCONF = """
import torch

def dinov2_vitl14(pretrained=True, **options):
    assert not pretrained, "weights are read safely by the caller"
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 56, 56), torch.nn.Flatten(), torch.nn.Linear(128, 1024)
    )
"""


def test_dinov2_features_are_prepared_as_torch_fidelity_does(hub, images, monkeypatch):
    dinov2 = pytest.importorskip("torch_fidelity.feature_extractor_dinov2")
    code = hub / "facebookresearch_dinov2_main"
    code.mkdir()
    (code / "hubconf.py").write_text(HUBCONF)
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 56, 56), torch.nn.Flatten(), torch.nn.Linear(128, 1024)
    )
    torch.save(network.state_dict(), hub / "checkpoints" / weights.DINOV2.name)
    place(hub, monkeypatch, weights.DINOV2)

    mine = get_space("dinov2_l14", SHAPE)
    monkeypatch.setattr(torch.hub, "load", lambda *given, **options: network)
    extractor = dinov2.FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    with torch.inference_mode():
        theirs = extractor(images)[0]
    torch.testing.assert_close(mine(images), theirs, rtol=1e-4, atol=1e-4)
    assert mine.name == "dinov2_l14"
    monkeypatch.undo()
    other = VisionSpace("dinov2_l14", network, "1234abcd" * 8)
    assert other.fingerprint.startswith("dinov2_l14_of_1234abcd-")
    assert other.dim == 1024
    torch.testing.assert_close(other(images), mine(images))


def test_missing_code_or_weights_are_named(hub):
    with pytest.raises(UsageError, match=r"get dinov2_vitl14_pretrain\.pth \(1,217,586,395 bytes"):
        get_space("dinov2_l14", SHAPE)
    with pytest.raises(UsageError, match=r"934,088,680 bytes.*bench fetch clip"):
        get_space("clip_l14_336", SHAPE)


def test_dinov2_without_its_code_is_refused(hub, monkeypatch):
    torch.save({"x": torch.zeros(1)}, hub / "checkpoints" / weights.DINOV2.name)
    place(hub, monkeypatch, weights.DINOV2)
    with pytest.raises(UsageError, match="needs the code of github"):
        get_space("dinov2_l14", SHAPE)


@pytest.fixture
def published(tmp_path):
    """A local server and the true description of its one file."""
    content = bytes(range(256)) * 20_000
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "weights.pth").write_bytes(content)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *given):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/weights.pth"
    digest = hashlib.sha256(content).hexdigest()
    yield weights.WeightFile("weights.pth", len(content), digest, address, "VARIABLE", "command")
    server.shutdown()
    server.server_close()


def test_fetch_downloads_checks_and_keeps(published, tmp_path):
    seen = []
    path = published.download(tmp_path / "to", lambda done, size: seen.append((done, size)))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == published.sha256
    assert seen[-1] == (published.size, published.size)
    assert len(seen) > 1
    again = replace(published, url="http://127.0.0.1:1/nobody").download(tmp_path / "to")
    assert again == path


def test_fetch_replaces_a_damaged_file(published, tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"half")
    assert published.download(tmp_path).stat().st_size == published.size


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"sha256": "0" * 64}, "it was not kept"),
        ({"size": 1000}, "is longer than the 1,000 bytes"),
        ({"size": 10**9}, "ended after 5,120,000 of 1,000,000,000 bytes"),
    ],
)
def test_fetch_keeps_nothing_wrong(published, tmp_path, wrong, message):
    with pytest.raises(BenchError, match=message):
        replace(published, **wrong).download(tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []


def test_fetch_into_a_folder_that_cannot_be_is_one_sentence(published, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BenchError, match=r"cannot be made .*choose another folder"):
        published.download(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b""


def test_an_answer_that_is_no_http_is_one_sentence(published, tmp_path, monkeypatch):
    def broken(*given, **options):
        raise http.client.IncompleteRead(b"half")

    waited = []
    monkeypatch.setattr("urllib.request.urlopen", broken)
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(BenchError, match="could not be downloaded"):
        published.download(tmp_path / "to")
    assert list((tmp_path / "to").iterdir()) == []
    assert tuple(waited) == PAUSES


def test_fetch_without_a_network_is_one_sentence(published, tmp_path):
    with pytest.raises(BenchError, match="could not be downloaded") as refusal:
        replace(published, url="http://127.0.0.1:1/nobody").download(tmp_path / "to")
    text = str(refusal.value)
    assert published.sha256 in text and str(tmp_path / "to" / "weights.pth") in text and "\n" not in text
    assert list((tmp_path / "to").iterdir()) == []
