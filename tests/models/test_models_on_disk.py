"""Models on disk: our own, and those of other apps, which are used in place and never changed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf_files
import msgspec
import pytest

from ondevice import models, paths
from ondevice.cli import run
from ondevice.config import Settings
from ondevice.errors import ModelError, ModelFileError, ModelNotFound, UsageError
from ondevice.models import InstalledModel, _library, _own_folder, _pull
from ondevice.planning.choice import choose


@pytest.fixture
def user(home: Path) -> Path:
    """The home folder, where other apps keep their files."""
    return home.parent / "user"


def in_hugging_face_cache(cache: Path, repo: str, file: str, **kind: Any) -> Path:
    """A file as ``huggingface_hub`` leaves it: a link to a blob."""
    folder = cache / f"models--{repo.replace('/', '--')}"
    blob = gguf_files.write(folder / "blobs" / hashlib.sha256(file.encode()).hexdigest(), **kind)
    link = folder / "snapshots" / ("c" * 40) / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def in_ollama(folder: Path, name: str, **kind: Any) -> Path:
    """A model as Ollama leaves it: a manifest that names blobs. ``name`` is host/space/name/tag."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    blob = gguf_files.write(folder / "blobs" / f"sha256-{digest}", **kind)
    manifest = folder / "manifests" / name
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kinds = {"license": "1" * 64, "model": digest, "projector": "2" * 64}
    layers = [
        {
            "mediaType": f"application/vnd.ollama.image.{layer}",
            "digest": f"sha256:{blob}",
            "size": 9,
        }
        for layer, blob in kinds.items()
    ]
    manifest.write_text(json.dumps({"schemaVersion": 2, "config": {}, "layers": layers}))
    return blob


def listed() -> list[tuple[str, str, Path]]:
    return [(model.name, model.place, model.path) for model in models.installed()]


# ------------------------------------------------------------------ where models are


@pytest.mark.parametrize(
    ("variable", "cache"),
    [
        (None, "user/.cache/huggingface/hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HF_HOME", "hub"),
        ("HF_HUB_CACHE", ""),
    ],
)
def test_the_hugging_face_cache_is_used_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, cache: str
) -> None:
    folder = tmp_path if variable is None else tmp_path / "elsewhere"
    if variable:
        monkeypatch.setenv(variable, str(folder))
    file = in_hugging_face_cache(folder / cache, "someone/Repo-GGUF", "q4/a.gguf", license="mit")
    in_hugging_face_cache(folder / cache, "someone/Repo-GGUF", "mmproj.gguf", kind="mmproj")
    (model,) = models.installed()
    assert model == InstalledModel(
        name="a",
        path=file,
        size_bytes=file.stat().st_size,
        place="Hugging Face",
        origin="someone/Repo-GGUF/q4/a.gguf",
        license="mit",
    )
    assert models.find("a") == models.find("a.gguf") == model
    assert models.find("someone/Repo-GGUF/q4/a.gguf") == model


def test_a_model_of_the_catalogue_that_another_app_has_needs_no_download(user: Path) -> None:
    recipe = next(recipe for recipe in models.catalogue() if recipe.name == "qwen3-0.6b")
    repo, _, file = recipe.sources[0].origin.rpartition("/")
    path = in_hugging_face_cache(user / ".cache/huggingface/hub", repo, file)
    model = models.find("qwen3-0.6b")
    assert (model.path, model.license) == (path, recipe.license)
    assert models.pull("qwen3-0.6b") == model
    path.unlink()
    lm_studio = gguf_files.write(user / ".lmstudio/models" / repo / file)
    assert models.find("qwen3-0.6b").path == lm_studio


def test_ollamas_models_have_ollamas_names(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = user / ".ollama" / "models"
    blobs = {
        name: in_ollama(folder, name)
        for name in (
            "registry.ollama.ai/library/llama3.2/latest",
            "registry.ollama.ai/library/llama3.2/1b",
            "registry.ollama.ai/someone/tuned/8b",
            "hf.co/bartowski/Some-GGUF/Q4_K_M",
        )
    }
    in_ollama(
        folder, "registry.ollama.ai/library/nomic-embed-text/latest", architecture="nomic-bert"
    )
    names = [
        "hf.co/bartowski/Some-GGUF:Q4_K_M",
        "llama3.2:1b",
        "llama3.2:latest",
        "someone/tuned:8b",
    ]
    assert [model.name for model in models.installed()] == names
    assert models.find("llama3.2").path == blobs["registry.ollama.ai/library/llama3.2/latest"]
    assert models.find("llama3.2:1b").path == blobs["registry.ollama.ai/library/llama3.2/1b"]
    monkeypatch.setenv("OLLAMA_MODELS", str(user / "elsewhere"))
    assert models.installed() == []
    in_ollama(user / "elsewhere", "registry.ollama.ai/library/moved/latest")
    assert models.find("moved").place == "Ollama"


@pytest.mark.parametrize(
    "manifest",
    [
        "{",
        "[]",
        "null",
        '{"layers": null}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model"}]}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model",'
        ' "digest": "sha256:../../../../etc/passwd"}]}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model",'
        f' "digest": "sha256:{"a" * 64}"}}]}}',
        '{"layers": [' + "[" * 100_000,
    ],
    ids=range(8),
)
def test_a_manifest_that_makes_no_sense_is_passed_over(user: Path, manifest: str) -> None:
    folder = user / ".ollama" / "models"
    in_ollama(folder, "registry.ollama.ai/library/good/latest")
    bad = folder / "manifests/registry.ollama.ai/library/bad/latest"
    bad.parent.mkdir()
    bad.write_text(manifest)
    assert [model.name for model in models.installed()] == ["good:latest"]


@pytest.mark.parametrize("folder", [".lmstudio/models", ".cache/lm-studio/models"])
def test_lm_studios_folder_is_used_in_place(user: Path, folder: str) -> None:
    repo = user / folder / "someone" / "Repo-GGUF"
    path = gguf_files.write(repo / "Some-Q4_K_M.gguf")
    gguf_files.write(repo / "mmproj-model-f16.gguf", "clip")
    gguf_files.write(repo / "lora.gguf", kind="adapter")
    (repo / "downloading_Other-Q8_0.gguf.part").write_bytes(b"GGUF")
    (repo / "page.gguf").write_text("<html>Not found</html>")
    assert listed() == [("Some-Q4_K_M", "LM Studio", path)]
    assert models.find("some-q4_k_m").path == path


def test_a_file_that_two_apps_know_is_listed_once_and_ours_first(user: Path) -> None:
    path = gguf_files.write(user / ".lmstudio/models/someone/Repo/a.gguf")
    models.import_file(path, "mine", how="link")
    assert [model.place for model in models.installed()] == ["ondevice"]


# ------------------------------------------------------------------ names


def test_our_own_model_comes_before_another_apps(user: Path) -> None:
    path = gguf_files.write(user / ".lmstudio/models/someone/Repo/same.gguf")
    assert models.find("same").path == path
    own = models.import_file(gguf_files.write(user / "same.gguf"))
    assert models.find("same") == own


def test_a_name_that_several_models_have_is_refused_with_all_of_them(user: Path) -> None:
    first, second = (
        gguf_files.write(user / f".lmstudio/models/{owner}/Repo/same.gguf") for owner in "ab"
    )
    with pytest.raises(ModelNotFound) as error:
        models.find("same")
    assert str(first) in str(error.value)
    assert str(second) in str(error.value)
    assert models.find(str(first)).path == first
    assert models.find("b/Repo/same.gguf").path == second


@pytest.mark.parametrize(
    "name", ["", ".", "..", "~nobody", "a\0b", "../../etc", "x" * 5000], ids=range(7)
)
def test_a_name_that_makes_no_sense_is_an_error_of_ours(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "a" / "b" / "c").mkdir(parents=True)
    monkeypatch.chdir(here)  # so that no folder of another test is looked through
    with pytest.raises(ModelNotFound):
        models.find(name)
    with pytest.raises(ModelNotFound):
        models.remove(name)


def test_the_whole_disk_is_not_removed() -> None:
    with pytest.raises(ModelNotFound):
        models.remove("/")


# ------------------------------------------------------------------ split models


def test_a_split_model_is_one(user: Path) -> None:
    repo = user / ".lmstudio/models/someone/Big"
    parts = gguf_files.write_split(repo, "Big-Q4_K_M", 3)
    assert listed() == [("Big-Q4_K_M", "LM Studio", parts[0])]
    (model,) = models.installed()
    assert model.size_bytes == sum(part.stat().st_size for part in parts)
    assert models.find("big-q4_k_m") == model


@pytest.mark.parametrize("lost", [0, 2])
def test_an_incomplete_set_is_listed_and_refused_by_what_is_missing(user: Path, lost: int) -> None:
    parts = gguf_files.write_split(user / ".lmstudio/models/someone/Big", "Big", 3)
    parts[lost].unlink()
    (model,) = models.installed()
    assert model.missing == (parts[lost].name,)
    with pytest.raises(ModelFileError, match=f"{parts[lost].name} is missing in"):
        models.find("Big")


# ------------------------------------------------------------------ hostile folders


def test_names_that_steer_the_terminal_are_passed_over(user: Path) -> None:
    repo = user / ".lmstudio/models/someone/Repo"
    for name in ("\x1b[2Jgone.gguf", "line\nbreak.gguf", "\u202eback.gguf", "good.gguf"):
        gguf_files.write(repo / name)
    gguf_files.write(paths.models_dir() / "\x1b]0;title\x07" / "model.gguf")
    assert [model.name for model in models.installed()] == ["good"]


def test_a_licence_is_one_short_line(user: Path) -> None:
    repo = user / ".lmstudio/models/someone/Repo"
    gguf_files.write(repo / "a.gguf", license="\x1b[31mmit\nand " + "more " * 100)
    (model,) = models.installed()
    assert model.license.startswith("[31mmitand more")
    assert len(model.license) == 40


def test_a_folder_without_end_is_listed_soon(user: Path) -> None:
    repo = user / ".lmstudio/models/someone/Repo"
    repo.mkdir(parents=True)
    for number in range(6000):
        (repo / f"x{number}-00001-of-00200.gguf").touch()
    (repo / "loop").symlink_to(user)
    assert 4900 < len(models.installed()) <= 5000


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_file_whose_name_is_no_text_can_be_imported(user: Path) -> None:
    path = gguf_files.write(user / os.fsdecode(b"a\xff\x1b.gguf"))
    with pytest.raises(ModelFileError, match="Rename it first"):
        models.find(str(path))
    assert models.import_file(path).name == "a-"
    assert models.find("a-").origin == str(user / "a.gguf")


def test_a_file_of_any_name_can_be_imported(user: Path) -> None:
    blob = in_ollama(user / ".ollama/models", "registry.ollama.ai/library/b/latest")
    assert models.import_file(blob, "blob").path.samefile(blob)
    hidden = gguf_files.write(user / ".v1.5-hidden")
    assert models.import_file(hidden).name == "v1.5-hidden"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes and permissions")
def test_what_cannot_be_read_is_passed_over(user: Path) -> None:
    repo = user / ".lmstudio/models/someone/Repo"
    good = gguf_files.write(repo / "good.gguf")
    os.mkfifo(repo / "pipe.gguf")
    (repo / "folder.gguf").mkdir()
    (repo / "lost.gguf").symlink_to(repo / "nowhere")
    (repo / "self.gguf").symlink_to(repo / "self.gguf")
    (user / ".cache").write_text("not a folder")
    assert listed() == [("good", "LM Studio", good)]


# ------------------------------------------------------------------ import


def test_an_imported_file_takes_no_room_and_stays_where_it_is(user: Path) -> None:
    path = gguf_files.write(user / "My model (v2).Q8_0.gguf", license="mit")
    model = models.import_file(path)
    assert model == models.find("My-model-v2-.Q8_0")
    assert (model.place, model.origin, model.license) == ("ondevice", str(path), "mit")
    assert model.path.samefile(path)
    facts = models.facts(model.name)
    assert facts.sha256 == (hashlib.sha256(path.read_bytes()).hexdigest(),)
    models.remove(model.name)
    assert path.exists()
    assert models.installed() == []


def test_on_another_disk_an_imported_file_is_copied(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    path = gguf_files.write(user / "a.gguf")
    monkeypatch.setattr(os, "link", no_link)
    model = models.import_file(path)
    assert not model.path.samefile(path)
    assert model.path.read_bytes() == path.read_bytes()


def test_what_a_killed_import_has_copied_goes_when_models_are_listed() -> None:
    folders = [paths.ensure_private(paths.models_dir() / name) for name in ("killed", "at-work")]
    for folder in folders:
        copied = paths.ensure_private(_own_folder.scratch_in(folder)) / "model.gguf"
        copied.write_bytes(bytes(1000))
    part = paths.ensure_private(paths.models_dir() / "paused") / "model.gguf.part"
    part.write_bytes(bytes(10))  # of a download, which goes on there
    with _own_folder.lock("at-work"):
        assert models.leftovers() == {"at-work": 1000, "paused": 10}
    assert [folder.exists() for folder in folders] == [False, True]


def test_where_no_link_can_be_made_a_copy_is_offered(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(38, "Function not implemented")  # as on exFAT

    monkeypatch.setattr(Path, "symlink_to", no_link)
    path = gguf_files.write(user / "a.gguf")
    with pytest.raises(ModelError, match=r"No link can be made in .* Import the file without"):
        models.import_file(path, how="link")
    assert models.installed() == []


def test_a_file_that_cannot_be_moved_away_is_imported_all_the_same(
    user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = gguf_files.write(user / "a.gguf")
    unlink = Path.unlink

    def refused(path: Path, *, missing_ok: bool = False) -> None:
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(ModelError, match=r"a was imported, but .* could not be removed: Permi"):
        models.import_file(file, how="move")
    assert models.find("a").place == "ondevice"


def test_an_imported_file_can_be_moved(user: Path) -> None:
    parts = gguf_files.write_split(user, "Big", 2)
    model = models.import_file(parts[1], how="move")
    assert (model.name, model.missing) == ("Big", ())
    assert not parts[0].exists()
    assert not parts[1].exists()


def test_an_imported_file_can_stay_where_it_is(user: Path) -> None:
    path = gguf_files.write(user / "a.gguf")
    model = models.import_file(path, how="link")
    assert model.path.is_symlink()
    models.remove("a")
    assert path.exists()


def test_only_a_model_that_can_chat_is_imported(user: Path) -> None:
    text = user / "text.gguf"
    text.parent.mkdir()
    text.write_text("no model")
    with pytest.raises(ModelFileError, match="is not a GGUF file"):
        models.import_file(text)
    with pytest.raises(ModelFileError, match="not a chat model"):
        models.import_file(gguf_files.write(user / "eyes.gguf", "clip", kind="mmproj"))
    for other in ("nomic-bert", "llada"):
        with pytest.raises(ModelFileError, match="not a chat model"):
            models.import_file(gguf_files.write(user / f"{other}.gguf", other))
    first, second = gguf_files.write_split(user, "Big", 2)
    second.unlink()
    with pytest.raises(ModelFileError, match=f"{second.name} is missing"):
        models.import_file(first)
    assert models.installed() == []
    assert not list(paths.models_dir().glob("[!.]*"))


def test_a_name_is_not_given_twice(user: Path) -> None:
    path = gguf_files.write(user / "a.gguf")
    models.import_file(path)
    with pytest.raises(ModelError, match=r"There is already a model named a.*--name"):
        models.import_file(path)
    assert models.import_file(path, "b").name == "b"
    for name in (" ", ".", "a/b", "..", "c-00001-of-00002"):
        with pytest.raises(UsageError, match="is not a valid name"):
            models.import_file(path, name)


# ------------------------------------------------------------------ remove


def test_other_apps_models_are_never_removed(user: Path) -> None:
    path = gguf_files.write(user / ".lmstudio/models/someone/Repo/a.gguf")
    blob = in_ollama(user / ".ollama/models", "registry.ollama.ai/library/b/latest")
    with pytest.raises(ModelError, match="it belongs to LM Studio"):
        models.remove("a")
    with pytest.raises(ModelError, match="it belongs to Ollama"):
        models.remove("b")
    with pytest.raises(ModelError, match="not in the folder of ondevice"):
        models.remove(str(path))
    assert path.exists()
    assert blob.exists()


# ------------------------------------------------------------------ several snapshots and names


def test_of_several_snapshots_the_one_of_the_main_branch_counts(user: Path) -> None:
    cache = user / ".cache/huggingface/hub"
    repo = cache / "models--someone--Repo"
    old = [in_snapshot(repo, "a" * 40, name) for name in ("x.gguf", "only-old.gguf")]
    new = in_snapshot(repo, "b" * 40, "x.gguf")
    newest = in_snapshot(repo, "c" * 40, "x.gguf")
    for age, link in enumerate([newest, new, old[0]]):
        os.utime(link.parent, (1e9 - age, 1e9 - age))
    assert [model.path for model in models.installed()] == [old[1], newest]
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("b" * 40)
    assert [model.path for model in models.installed()] == [old[1], new]
    assert models.find("x").path == new
    assert models.find("someone/Repo/x.gguf").path == new
    for nonsense in ("", "../../elsewhere", "\0" * 40, "d" * 40):
        (repo / "refs" / "main").write_text(nonsense)
        assert models.find("x").path == newest


def in_snapshot(repo: Path, commit: str, file: str) -> Path:
    blob = gguf_files.write(repo / "blobs" / f"{commit}-{file}")
    link = repo / "snapshots" / commit / file
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_a_split_model_is_taken_from_a_snapshot_that_has_all_of_it(user: Path) -> None:
    repo = user / ".cache/huggingface/hub/models--someone--Big"
    whole = gguf_files.write_split(repo / "snapshots" / ("a" * 40), "Big", 2)
    gguf_files.write_split(repo / "snapshots" / ("b" * 40), "Big", 2)[1].unlink()
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("b" * 40)
    (model,) = models.installed()
    assert (model.path, model.missing) == (whole[0], ())


def test_all_names_of_one_file_are_known(user: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = user / ".ollama" / "models"
    blob = in_ollama(folder, "registry.ollama.ai/library/llama3.2/latest")
    manifest = folder / "manifests/registry.ollama.ai/library/llama3.2/latest"
    for name in (
        "registry.ollama.ai/library/llama3.2/1b",
        "registry.ollama.ai/library/mine/latest",
    ):
        (folder / "manifests" / name).parent.mkdir(exist_ok=True)
        (folder / "manifests" / name).write_bytes(manifest.read_bytes())
    (model,) = models.installed()
    assert (model.name, model.aliases) == ("llama3.2:1b", ("llama3.2:latest", "mine:latest"))
    for name in ("llama3.2", "llama3.2:latest", "llama3.2:1b", "mine", "mine:latest"):
        assert models.find(name).path == blob
    assert run(["models", "list"]) == 0
    assert "llama3.2:1b, llama3.2:latest, mine:latest" in capfd.readouterr().out


def test_what_ollama_adds_to_a_model_is_said_to_be_missing(
    user: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = user / ".ollama" / "models"
    in_ollama(folder, "registry.ollama.ai/library/tuned/latest")
    manifest = folder / "manifests/registry.ollama.ai/library/tuned/latest"
    content = json.loads(manifest.read_text())
    for kind in ("adapter", "system", "params", "template", "somethingnew"):
        media_type = f"application/vnd.ollama.image.{kind}"
        content["layers"].append({"mediaType": media_type, "digest": f"sha256:{'3' * 64}"})
    manifest.write_text(json.dumps(content))
    (model,) = models.installed()
    assert model.not_used == ("adapter", "system prompt", "parameters", "template")
    assert "which is not applied" in choose(Settings(), "tuned").why
    assert run(["models", "list"]) == 0
    assert "Ollama, without its adapter" in capfd.readouterr().out
    assert run(["models", "show", "tuned"]) == 0
    assert "adapter, system prompt, parameters, template of Ollama" in capfd.readouterr().out


# ------------------------------------------------------------------ more apps


@pytest.mark.parametrize("at", [".lmstudio", ".cache/lm-studio", "moved home"])
def test_lm_studios_folder_may_be_anywhere(user: Path, at: str) -> None:
    (user / at).mkdir(parents=True)
    if at == "moved home":
        (user / ".lmstudio-home-pointer").write_text(f"{user / at}\n")
        path = gguf_files.write(user / at / "models/someone/Repo/a.gguf")
        assert listed() == [("a", "LM Studio", path)]
    settings = user / at / "settings.json"
    settings.write_text(json.dumps({"downloadsFolder": str(user / "disk 2"), "language": "en"}))
    path = gguf_files.write(user / "disk 2/someone/Repo/b.gguf")
    assert models.find("b").path == path
    for nonsense in (
        "",
        "{",
        "[" * 100_000,
        '{"downloadsFolder": 7}',
        '{"downloadsFolder": "~x/\\u0000"}',
    ):
        settings.write_text(nonsense)
        assert "b" not in {model.name for model in models.installed()}


@pytest.mark.parametrize(
    ("place", "file", "name"),
    [
        ("llama.cpp", ".cache/llama.cpp/someone_Repo_a-Q4_K_M.gguf", "someone_Repo_a-Q4_K_M"),
        ("llama.cpp", "Library/Caches/llama.cpp/a.gguf", "a"),
        ("GPT4All", ".local/share/nomic.ai/GPT4All/a.gguf", "a"),
        ("GPT4All", "Library/Application Support/nomic.ai/GPT4All/a.gguf", "a"),
        ("Jan", ".local/share/Jan/data/llamacpp/models/someone/qwen/model.gguf", "qwen"),
        ("Jan", "jan/models/llama/a.gguf", "a"),
        ("LM Studio", ".lmstudio/models/someone/Repo/CAPITALS.GGUF", "CAPITALS"),
    ],
)
def test_what_other_apps_have_is_found(user: Path, place: str, file: str, name: str) -> None:
    path = gguf_files.write(user / file)
    assert listed() == [(name, place, path)]
    assert models.find(name).path == path
    with pytest.raises(ModelError, match=f"it belongs to {place}"):
        models.remove(name)


def test_the_variables_of_other_apps_count(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CACHE", str(user / "cache"))
    gguf_files.write(user / "cache/a.gguf")
    (user / ".config/nomic.ai").mkdir(parents=True)
    (user / ".config/nomic.ai/GPT4All.ini").write_text(f"[General]\nmodelPath={user / 'more'}\n")
    gguf_files.write(user / "more/b.gguf")
    assert [(name, place) for name, place, _ in listed()] == [("a", "llama.cpp"), ("b", "GPT4All")]


# ------------------------------------------------------------------ what is gone


def test_a_model_whose_file_is_gone_is_listed_and_can_be_removed(
    user: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = gguf_files.write(user / "a.gguf")
    models.import_file(path, how="link")
    path.unlink()
    assert run(["models", "list"]) == 0
    assert "its file is gone" in capfd.readouterr().out
    with pytest.raises(ModelFileError, match=r"a\.gguf is gone.*ondevice models rm a"):
        models.find("a")
    with pytest.raises(ModelNotFound):
        choose(Settings())
    gguf_files.write(path)
    assert models.find("a").missing == ()
    path.unlink()
    assert run(["models", "rm", "a", "--yes"]) == 0
    assert not (paths.models_dir() / "a").exists()


def test_what_is_there_gets_another_name_without_a_download(user: Path) -> None:
    recipe = next(recipe for recipe in models.catalogue() if recipe.name == "qwen3-0.6b")
    repo, _, file = recipe.sources[0].origin.rpartition("/")
    path = in_hugging_face_cache(user / ".cache/huggingface/hub", repo, file)
    assert models.pull("qwen3-0.6b", name="mine").name == "mine"
    assert models.find("mine").path.samefile(path)
    assert models.pull("qwen3-0.6b", name="mine").name == "mine"


# ------------------------------------------------------------------ models of the catalogue


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> models.Recipe:
    """The only one, of a small file."""
    sample = gguf_files.write(tmp_path / "sample.gguf")
    one = next(recipe for recipe in models.catalogue() if recipe.name == "qwen3-4b")
    one = msgspec.structs.replace(one, size_bytes=sample.stat().st_size)
    for module in (_library, _pull):
        monkeypatch.setattr(module, "catalogue", lambda: (one,))
    return one


def in_own_folder(user: Path, file: str, sha256: str) -> Path:
    del sha256
    return gguf_files.write(user / "models" / file)


def by_ollama(user: Path, file: str, sha256: str) -> Path:
    name = "hf.co/someone/repo/Q4_K_M"
    blob = in_ollama(user / ".ollama" / "models", name)
    manifest = user / ".ollama" / "models" / "manifests" / name
    manifest.write_text(manifest.read_text().replace(blob.name[7:], sha256))
    return blob.rename(blob.with_name(f"sha256-{sha256}"))


def by_gpt4all(user: Path, file: str, sha256: str) -> Path:
    return gguf_files.write(user / ".local/share/nomic.ai/GPT4All" / file.replace("-", "_"))


@pytest.mark.parametrize("place", [in_own_folder, by_ollama, by_gpt4all])
@pytest.mark.parametrize("is_imported", [False, True])
def test_a_model_of_the_catalogue_is_known_wherever_it_was_downloaded(
    user: Path,
    recipe: models.Recipe,
    place: Callable[[Path, str, str], Path],
    is_imported: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ONDEVICE_MODELS_FOLDER", str(user / "models"))
    source = recipe.sources[0]
    path = place(user, source.file_name, source.sha256 or "")
    if is_imported:
        imported = models.import_file(path, "mine")
        path.unlink()
        assert imported.name == "mine"
    (model,) = models.installed()
    assert models.to_download([model]) == []
    assert models.find(recipe.name).path == model.path
    assert models.pull(recipe.name).path == model.path
    assert models.facts(recipe.name).about == recipe.about()


def test_another_file_with_the_name_of_one_of_the_catalogue_is_not_that(
    user: Path, recipe: models.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_MODELS_FOLDER", str(user / "models"))
    gguf_files.write(user / "models" / recipe.sources[0].file_name, license="mit")
    assert models.to_download(models.installed()) == [recipe]
