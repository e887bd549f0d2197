"""
Whether laion-clap and our reading of its checkpoints give the same embeddings, on random weights.

In an environment with laion-clap (it wants NumPy 1):

    python tests/audiobert/sounds/laion_clap_parity.py write OUT RECORDING ...
    python tests/audiobert/sounds/laion_clap_parity.py fixture tests/audiobert/sounds/laion_clap.json

and in ours:

    python tests/audiobert/sounds/laion_clap_parity.py compare OUT

`write` saves checkpoints of HTSAT-tiny and HTSAT-base, fused and not, with what laion-clap makes of the recordings and
of some tokens; `compare` prints the largest differences. `fixture` writes what `test_laion_clap.py` reads: the same of
a tiny model, by the names and shapes of its weights alone. With `--antialias`, long recordings are shrunk as newer
torchvision does by default, and not as when the checkpoints were trained.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "fixtures"))

from laion_fixtures import RATE, TEXTS, drawn, is_drawn, sounds  # noqa: E402

SEED = 0
LENGTH = 77
VARIANTS = {f"{size}{'-fused' * fused}": (size, fused) for size in ("tiny", "base") for fused in (False, True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["write", "compare", "fixture"])
    parser.add_argument("out", type=Path)
    parser.add_argument("recordings", type=Path, nargs="*")
    parser.add_argument("--antialias", action="store_true")
    parser.add_argument("--variant", choices=list(VARIANTS), help="this one alone")
    arguments = parser.parse_args()
    variants = [arguments.variant] if arguments.variant else list(VARIANTS)
    if arguments.what == "fixture":
        write_fixture(arguments.out)
    for variant in variants:
        if arguments.what == "write":
            write(arguments.out / variant, *VARIANTS[variant], arguments.recordings, arguments.antialias)
        elif arguments.what == "compare":
            compare(arguments.out / variant)


def laion_clap(fused: bool, antialias: bool) -> Any:
    """The package's modules, without what they download when they are imported."""
    import torchvision
    import transformers

    for tokenizer in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
        getattr(transformers, tokenizer).from_pretrained = lambda *_, **__: None
    if not antialias:
        resize = torchvision.transforms.Resize
        torchvision.transforms.Resize = functools.partial(resize, antialias=False)
    from laion_clap.training import data  # which puts `clap_module` on the path

    import clap_module.model  # isort: skip

    return clap_module.model, data


def roberta(**sizes: int) -> Any:
    from transformers import RobertaConfig, RobertaModel

    defaults = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return RobertaModel(RobertaConfig(**{**defaults, **sizes}))


def new_clap(size: str, fused: bool, modules: Any) -> tuple[Any, dict[str, Any]]:
    """laion-clap's model with random weights, as `laion_clap.CLAP_Module` builds it; its tokens from a tiny set."""
    models, _ = modules
    models.RobertaModel.from_pretrained = lambda *_, **__: roberta()
    root = Path(models.__file__).parent / "model_configs"
    config = json.loads((root / f"HTSAT-{'tiny' if size == 'mini' else size}.json").read_text())
    config["text_cfg"]["model_type"] = "roberta"
    extra: dict[str, Any] = {"enable_fusion": fused, "fusion_type": "aff_2d" if fused else "None"}
    if size == "mini":
        from clap_module.htsat import HTSAT_Swin_Transformer

        small = {"num_classes": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 8}
        models.create_htsat_model = lambda audio, enable_fusion, fusion_type: HTSAT_Swin_Transformer(
            config=audio, enable_fusion=enable_fusion, fusion_type=fusion_type, **small
        )
        sizes = {"vocab_size": 19, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        models.RobertaModel.from_pretrained = lambda *_, **__: roberta(
            **{**sizes, "intermediate_size": 32, "max_position_embeddings": 90}
        )
        config["embed_dim"], extra["joint_embed_shape"] = 32, 32
    model = models.CLAP(**config, **extra)
    if size == "mini":
        model.text_projection[0] = torch.nn.Linear(64, 32)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if is_drawn(name):
                value.copy_(drawn(name, value.shape))
    return model.eval(), config["audio_cfg"]


def embeddings(
    model: Any, audio: dict[str, Any], modules: Any, heard: dict[str, np.ndarray], fused: bool, whole: bool
) -> dict[str, np.ndarray]:
    """laion-clap's embeddings of sounds, one at a time, and of the texts, as `CLAP_Module` gives them."""
    _, data = modules
    found = {}
    for name, waveform in heard.items():
        # CLAP_Module rounds recordings to 16 bits.
        samples = waveform if whole else data.int16_to_float32(data.float32_to_int16(waveform))
        np.random.seed(SEED)
        truncating = "fusion" if fused else "rand_trunc"
        features = data.get_audio_features(
            {}, torch.from_numpy(samples).float(), 480000, truncating, "repeatpad", audio
        )
        found[name] = model.get_audio_embedding([features]).detach().numpy()[0]
    for number, tokens in enumerate(TEXTS):
        ids = torch.tensor([[*tokens, *[1] * (LENGTH - len(tokens))]])
        text = {"input_ids": ids, "attention_mask": (ids != 1).long()}
        found[f"text {number}"] = model.get_text_embedding(text).detach().numpy()[0]
    return found


def write(out: Path, size: str, fused: bool, recordings: list[Path], antialias: bool) -> None:
    import librosa

    out.mkdir(parents=True, exist_ok=True)
    modules = laion_clap(fused, antialias)
    model, audio = new_clap(size, fused, modules)
    heard = {path.stem: librosa.load(path, sr=RATE)[0] for path in recordings}
    # All of them one after another, as what is shared here is short.
    heard["all, one after another"] = np.concatenate([*heard.values()] * 3)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    rate = np.float64(1e-4)
    # As laion-clap's training saves it: the scheduler leaves numbers of NumPy in the optimizer.
    content = {"epoch": 1, "name": "random", "state_dict": state, "optimizer": {"param_groups": [{"lr": rate}]}}
    torch.save(content, out / "random.pt")
    found = {}
    for whole in (True, False):
        for name, vector in embeddings(model, audio, modules, heard, fused, whole).items():
            found[f"{'exact' if whole else '16 bits'}/{name}"] = vector
    np.savez(out / "expected.npz", **{f"heard/{name}": wave for name, wave in heard.items()}, **found)
    print(f"{out.name}: {sum(value.numel() for value in state.values()) / 1e6:.0f} million weights", flush=True)


def compare(folder: Path) -> None:
    from transformers import AutoTokenizer

    from audiobert.sounds import laion_clap

    # The tokens are given.
    laion_clap.load_tokenizer = lambda *_, **__: AutoTokenizer  # type: ignore[assignment]
    model, extractor, _ = laion_clap.load_laion_clap(folder / "random.pt")
    expected = dict(np.load(folder / "expected.npz"))
    heard = {name.removeprefix("heard/"): wave for name, wave in expected.items() if name.startswith("heard/")}
    found = our_embeddings(model, extractor, heard)
    differences: dict[str, float] = {}
    for name, vector in expected.items():
        kind, _, what = name.partition("/")
        if kind != "heard":
            of = "texts" if what.startswith("text ") else f"{'long' if ',' in what else 'short'} recordings"
            if of == "texts" and kind == "16 bits":
                continue
            # How far its rounding takes a recording is the package's own affair, and told as a cosine.
            rounded = kind == "16 bits"
            key = f"{of}, rounded to 16 bits there, 1 - cosine" if rounded else of
            difference = 1 - found[what] @ vector if rounded else np.abs(found[what] - vector).max()
            differences[key] = max(differences.get(key, 0.0), float(difference))
    vectors = np.stack([vector for name, vector in found.items() if not name.startswith("text ")])
    apart = np.abs(vectors[:, None] - vectors[None])[~np.eye(len(vectors), dtype=bool)].reshape(-1, vectors.shape[1])
    print(f"{folder.name}: two recordings differ by {apart.max(axis=1).min():.3f} at least", end="")
    print("".join(f"; {name}: {value:.1e}" for name, value in differences.items()), flush=True)


def our_embeddings(model: Any, extractor: Any, heard: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What our `ClapModel` makes of sounds, one at a time, and of the texts."""
    found = {}
    normalize = torch.nn.functional.normalize
    with torch.no_grad():
        for name, waveform in heard.items():
            np.random.seed(SEED)
            features = extractor(waveform, sampling_rate=RATE, return_tensors="pt")
            features["is_longer"] = torch.tensor([[len(waveform) > extractor.nb_max_samples]])
            vector = model.get_audio_features(**features).pooler_output
            found[name] = normalize(vector, dim=-1)[0].numpy()
        for number, tokens in enumerate(TEXTS):
            vector = model.get_text_features(input_ids=torch.tensor([tokens])).pooler_output
            found[f"text {number}"] = normalize(vector, dim=-1)[0].numpy()
    return found


def write_fixture(out: Path) -> None:
    content: dict[str, Any] = {"shapes": {}, "expected": {}}
    for fused in (True, False):
        modules = laion_clap(fused, antialias=False)
        model, audio = new_clap("mini", fused, modules)
        found = embeddings(model, audio, modules, sounds(), fused, whole=True)
        content["shapes"]["fused" if fused else "plain"] = {
            name: list(value.shape) for name, value in model.state_dict().items()
        }
        content["expected"]["fused" if fused else "plain"] = {
            name: [round(float(value), 6) for value in vector] for name, vector in found.items()
        }
    fused_shapes, plain = content["shapes"]["fused"], content["shapes"].pop("plain")
    # A plain model has the weights of a fused one but for those that fuse.
    assert plain == {
        name: shape for name, shape in fused_shapes.items() if "fusion_model" not in name and "mel_conv" not in name
    }
    content["shapes"] = fused_shapes
    lines = [f"  {json.dumps(name)}: {json.dumps(shape)}" for name, shape in fused_shapes.items()]
    expected = json.dumps(content["expected"])
    out.write_text('{"shapes": {\n' + ",\n".join(lines) + '\n},\n"expected": ' + expected + "}\n")


if __name__ == "__main__":
    main()
