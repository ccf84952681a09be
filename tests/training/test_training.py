"""Laws of training: rows, loss, optimizer, and runs that resume exactly."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from twgi.icons import chains, tasks
from twgi.icons.chains import Chain, Drawn
from twgi.icons.world import Scene
from twgi.model.config import TransformerConfig, VQConfig
from twgi.model.transformer import Transformer
from twgi.model.vqvae import VQModel
from twgi.thinking.modes import MODES
from twgi.tokenizer.multimodal import MultimodalTokenizer
from twgi.training import lm, vq
from twgi.training.loss import IGNORED, token_loss_sum
from twgi.training.optimizer import build_optimizer, orthogonalize
from twgi.training.rows import Mixture, RowMaker, SceneCodes, Steps, pad
from twgi.training.state import load_state, save_state

VQ = VQConfig(
    resolution=64, base_channels=32, channel_multiplier=(1, 1, 1, 1), num_res_blocks=1, attn_type="none",
    latent_channels=8, embed_dim=4, num_embeddings=32,
)  # fmt: skip
VQ_YAML = """
model: {resolution: 64, base_channels: 32, channel_multiplier: [1, 1, 1, 1], num_res_blocks: 1, attn_type: none,
  latent_channels: 8, embed_dim: 4, num_embeddings: 32}
batch: 2
plain_steps: 1
decoder_steps: 1
log_every: 1
save_every: 2
"""


class PlainCodes(SceneCodes):
    """Codes that need no encoder: code 0 is the ground, and a thing is one code everywhere."""

    def encode(self, scenes: Sequence[Scene]) -> np.ndarray:
        codes = np.zeros((len(scenes), 8, 8), np.int64)
        for i, scene in enumerate(scenes):
            for thing in scene.objects:
                codes[i, thing.row : thing.row + 3, thing.col : thing.col + 3] = 1 + len(thing.name)
        return codes.reshape(len(scenes), -1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MultimodalTokenizer:
    torch.manual_seed(0)
    text = lm.text_tokenizer(tmp_path_factory.mktemp("text"), codes=32, merges=300, seed=0)
    return lm.make_tokenizer(VQModel(VQ), text)


def test_a_resumed_run_reads_the_same_ids_even_if_the_world_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = lm.text_tokenizer(tmp_path, codes=32, merges=100, seed=0)
    monkeypatch.setattr(lm, "sentences", lambda count, seed: ["other words altogether"] * 10)
    again = lm.text_tokenizer(tmp_path, codes=32, merges=100, seed=0)
    assert again.names == first.names


@pytest.fixture(scope="module")
def maker(tokenizer: MultimodalTokenizer) -> RowMaker:
    return RowMaker(tokenizer, PlainCodes(tokenizer), Mixture(direct_rows=2, chain_tokens=300))


def chain_of(mode: str) -> Chain:
    rng = np.random.default_rng(3)
    request = tasks.color_attr(rng)
    scene = tasks.make_scene(request, rng)
    match mode:
        case "direct":
            return chains.direct(request, scene)
        case "subgoal":
            return chains.subgoal(request, scene)
        case "critique":
            return chains.critique(request, scene, rng, flawed_share=0.99)
    return chains.caption(scene, rng)


@pytest.mark.parametrize("mode", list(MODES))
def test_a_training_row_begins_with_the_ids_that_inference_begins_with(maker: RowMaker, mode: str) -> None:
    chain = chain_of(mode)
    ids, labels = maker.row(chain)
    codes = [maker.codes(scene).tolist() for scene in chain.pictures]
    start = maker.tokenizer.encode_prompt(MODES[mode].prompt_text(chain.prompt), codes)
    assert ids[: len(start)] == start
    assert set(labels[: len(start)]) == {IGNORED}
    assert labels[-1] == ids[-1] == maker.tokenizer.vocab.eos


def test_a_flawed_draft_carries_no_loss_and_everything_else_of_the_response_does(maker: RowMaker) -> None:
    chain = chain_of("critique")
    ids, labels = maker.row(chain)
    silent = sum(64 + 1 for part in chain.response if isinstance(part, Drawn) and not part.learn)
    start = len(maker.prompt_ids(chain))
    assert silent > 0
    assert sum(label == IGNORED for label in labels[start:]) == silent
    assert all(label in (token, IGNORED) for token, label in zip(ids, labels, strict=True))


def test_a_response_decodes_into_its_words_and_whole_pictures(maker: RowMaker) -> None:
    chain = chain_of("subgoal")
    ids, _ = maker.row(chain)
    segments, anomalies = maker.tokenizer.decode(ids[len(maker.prompt_ids(chain)) :])
    assert not anomalies
    pictures = [codes for s in segments if (codes := maker.tokenizer.codes_of(s)) is not None]
    drawn = [part.scene for part in chain.response if isinstance(part, Drawn)]
    assert [list(p) for p in pictures] == [maker.codes(scene).tolist() for scene in drawn]


def test_the_rows_of_a_step_depend_on_seed_and_step_alone(maker: RowMaker) -> None:
    first, again = (Steps(maker, seed=1, steps=40) for _ in range(2))
    for _ in range(3):
        again[17]
    for a, b in zip(first[9], again[9], strict=True):
        assert torch.equal(a["ids"], b["ids"])
        assert torch.equal(a["labels"], b["labels"])
    assert not torch.equal(first[9][0]["ids"][:, :10], first[10][0]["ids"][:, :10])


def test_codes_laid_together_are_those_of_the_encoder_where_the_encoder_is_local(maker: RowMaker) -> None:
    rng = np.random.default_rng(0)
    scenes = [tasks.make_scene(tasks.many(rng), rng) for _ in range(10)]
    assert maker.codes.agreement(scenes) == 1.0


def tiny_model(size: int = 50) -> Transformer:
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=size, hidden_size=32, intermediate_size=48, num_layers=2, num_heads=2, num_kv_heads=2
    )
    model = Transformer(config)
    model.init_weights()
    return model


def test_the_loss_of_unequal_lengths_is_the_mean_over_real_targets() -> None:
    model = tiny_model()
    rows = [(list(range(3, 3 + n)), [IGNORED] * 2 + list(range(5, 3 + n))) for n in (6, 17, 9)]
    batch = pad(rows, pad_id=1)
    together = token_loss_sum(model(batch["ids"]), batch["labels"], model.head)
    alone = [token_loss_sum(model(torch.tensor([i])), torch.tensor([t]), model.head) for i, t in rows]
    torch.testing.assert_close(together, torch.stack(alone).sum(), rtol=1e-5, atol=1e-5)


def test_orthogonalized_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 40, 24), (2, 24, 40)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape), rounds=8).float())
        assert values.min() > 0.5
        assert values.max() < 1.4


def test_the_optimizer_steps_every_parameter_and_learns() -> None:
    model = tiny_model()
    optimizer = build_optimizer(model, matrix_lr=0.02, other_lr=3e-3, weight_decay=0.01)
    assert {id(p) for g in optimizer.param_groups for p in g["params"]} == {id(p) for p in model.parameters()}
    ids = torch.arange(2, 34)[None]
    losses = []
    for _ in range(30):
        loss = token_loss_sum(model(ids), ids, model.head) / 31
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def run_vq(folder: Path, steps: int, out: str) -> dict[str, torch.Tensor]:
    recipe = folder / f"{out}.yaml"
    recipe.write_text(VQ_YAML + f"out: {folder / out}\nsteps: 4\n")
    trainer_steps = vq.VQTrainer.train_step
    left = [steps]

    def stopping(self: vq.VQTrainer) -> dict[str, float]:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        return trainer_steps(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vq.VQTrainer, "train_step", stopping)
        with contextlib.suppress(KeyboardInterrupt):
            vq.run_vq(recipe)
    state = load_state(folder / out)
    assert state is not None
    return state["model"]


def test_a_stopped_image_tokenizer_run_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = run_vq(tmp_path, 4, "whole")
    run_vq(tmp_path, 3, "stopped")  # saved at step 2
    resumed = run_vq(tmp_path, 4, "stopped")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_torn_state_falls_back_to_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_state(tmp_path, {"step": 1})
    save_state(tmp_path, {"step": 2})
    newest = tmp_path / "state.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    assert load_state(tmp_path) == {"step": 1}
    assert "cannot be read" in capsys.readouterr().out


def test_the_language_model_loop_runs_stops_and_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(lm, "SceneCodes", PlainCodes)  # the real table takes a minute
    run_vq(tmp_path, 4, "vq")
    whole = run_lm(tmp_path, "whole", stop_at=None)
    run_lm(tmp_path, "stopped", stop_at=3)  # saved at step 2
    assert run_lm(tmp_path, "stopped", stop_at=None) == whole


def run_lm(folder: Path, out: str, stop_at: int | None) -> bytes:
    """The weights that four steps come to; none if the run is stopped on its way."""
    recipe = folder / f"{out}.yaml"
    recipe.write_text(
        f"out: {folder / out}\nvq: {folder / 'vq.yaml'}\nmerges: 100\nsteps: 4\nsave_every: 2\n"
        "log_every: 1\nbf16: false\n"
        "model: {hidden_size: 32, intermediate_size: 32, num_layers: 1, num_heads: 2, num_kv_heads: 2}\n"
        "mixture: {direct_rows: 2, chain_tokens: 300}\n"
    )
    step = lm.LMTrainer.training_step

    def stopping(
        self: lm.LMTrainer, model: torch.nn.Module, inputs: list[dict[str, torch.Tensor]], *more: object
    ) -> torch.Tensor:
        if self.state.global_step == stop_at:
            raise KeyboardInterrupt
        return step(self, model, inputs, *more)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(lm.LMTrainer, "training_step", stopping)
        return (lm.run_lm(recipe) / "model.safetensors").read_bytes()
    return b""
