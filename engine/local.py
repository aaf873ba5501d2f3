"""The `Engine` of a checkpoint directory, the bundled nano model's included. Weights are loaded on
the engine thread; MLX is imported there and nowhere else, after a fast BLAS. Every way to fail ends
in one EngineError that says what to do, with the thread ended.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ds4_agent.engine import blas
from ds4_agent.engine.api import LoadProgress, StoreOptions
from ds4_agent.engine.context import ModelContext, Runtime
from ds4_agent.engine.dsml.segments import EOS
from ds4_agent.engine.dsml.tokenizer import Tokenizer
from ds4_agent.engine.errors import Cancelled, EngineError, ModelFormatError
from ds4_agent.engine.speculative.layer import LayerDrafter
from ds4_agent.engine.speculative.lookahead import Lookahead
from ds4_agent.engine.speculative.lookup import Lookup
from ds4_agent.engine.speculative.pace import Mode, Pace
from ds4_agent.engine.steps import Steps
from ds4_agent.engine.version import NANO_VERSION, Version, read_version
from ds4_agent.engine.worker import Worker

if TYPE_CHECKING:
    from ds4_agent.engine.model.draft import DraftLayer

__all__ = ["ModelEngine", "default_context", "with_store"]

DEFAULT_CONTEXT = 131_072  # of a published model: 0.9 GB of KV rows in bf16


class ModelEngine:
    """The `Engine` of a checkpoint directory, the bundled nano model's included."""

    def __init__(
        self,
        directory: Path,
        is_nano: bool = False,
        *,
        context_length: int | None = None,
        on_load: Callable[[LoadProgress], None] | None = None,
        store: StoreOptions | None = None,
        speculate: Mode = "off",
        verdicts: Path | None = None,
    ) -> None:
        """Load `directory`; see `open_engine`. `is_nano`, or "ds4_nano" in config.json: the small
        model's defaults (thinking off, its own prompt, greedy)."""
        self.tokenizer = Tokenizer.from_file(directory / "tokenizer.json")
        self._worker = Worker()
        try:
            self.runtime, self.fingerprint, version, self.notice = self._worker.call(
                _load, self._worker, directory, self.tokenizer, context_length, on_load, verdicts
            )
        except BaseException:
            self._worker.close()
            raise
        self.pace = Pace(speculate)
        if speculate != "off":
            # Only where it is asked for: the layer takes memory that the plan does not count.
            draft = None
            if speculate == "on":
                try:
                    draft = self._worker.call(_load_draft, directory, self.runtime)
                except BaseException:
                    self._worker.close()
                    raise
            self.runtime = with_guesses(self.runtime, self.pace, draft)
        if store is not None:
            self.runtime = with_store(self.runtime, store, self.fingerprint)
        version = NANO_VERSION if is_nano else version
        self.model_name = "nano" if version is NANO_VERSION else directory.resolve().name
        self.context_length = self.runtime.context_length
        self.efforts = version.efforts
        self.default_thinking = version.thinking
        self.default_profile = version.profile
        self.default_sampling = version.sampling

    @property
    def speculation(self) -> str:
        """See `api.Engine.speculation`."""
        return self.pace.account()

    @property
    def store_failure(self) -> str:
        return "" if self.runtime.store is None else self.runtime.store.failure

    def new_context(self, ids: Sequence[int] = ()) -> ModelContext:
        return ModelContext(self.runtime).holding(ids)

    def batching(self, limit: int) -> AbstractContextManager[None]:
        """See `api.Engine.batching`."""
        return self.runtime.steps.gathered(limit)

    def close(self) -> None:
        if self.runtime.store is not None:
            self.runtime.store.close()  # first: it still asks the engine thread for rows
        self._worker.close()


def default_context(longest: int) -> int:
    """The context of a model that can take `longest` tokens, where none is asked for."""
    return min(longest, DEFAULT_CONTEXT)


def with_guesses(runtime: Runtime, pace: Pace, draft: "DraftLayer | None" = None) -> Runtime:
    """The same engine, its contexts guessing ahead: from the context, then by a draft layer."""

    def lookahead() -> Lookahead:
        layer = None if draft is None else LayerDrafter(draft, runtime.worker, runtime.vocabulary)
        return Lookahead(pace, (Lookup(),), runtime.eos, layer)

    return replace(runtime, new_lookahead=lookahead)


def with_store(runtime: Runtime, options: StoreOptions, fingerprint: str) -> Runtime:
    """The same engine, its contexts' states kept on disk."""
    from ds4_agent.engine.kvstore.disk import Disk
    from ds4_agent.engine.kvstore.keys import root_key
    from ds4_agent.engine.kvstore.snapshot import Layout
    from ds4_agent.engine.kvstore.store import KvStore

    config = runtime.model.config
    dtype = str(runtime.model.dtype).rpartition(".")[2]  # "mlx.core.bfloat16"
    root = root_key(fingerprint, dtype, kv_simulation=config.kv_simulation)
    disk = Disk(options.directory, options.budget)
    store = KvStore(
        disk, root, Layout(config, dtype, in_numpy=runtime.model.is_in_numpy), runtime.worker.call
    )
    return replace(runtime, store=store)


def _load_draft(directory: Path, runtime: Runtime) -> "DraftLayer | None":
    """Runs on the engine thread."""
    from ds4_agent.engine.weights.draft import load_draft

    return load_draft(directory, runtime.model)


def _load(
    worker: Worker,
    directory: Path,
    tokenizer: Tokenizer,
    context_length: int | None,
    on_load: Callable[[LoadProgress], None] | None,
    verdicts: Path | None,
) -> tuple[Runtime, str, Version, str]:
    """(the runtime, the fingerprint, the version, a notice). Runs on the engine thread. A `close`
    while it loads stops it at the next layer."""
    blas.preload()
    from ds4_agent.engine.model.kernels.machine import choose_for_machine
    from ds4_agent.engine.weights.checkpoint import (
        fingerprint,
        load_model,
        read_config,
        stream_dtype,
    )
    from ds4_agent.engine.weights.stamps import refuse_changes, stamps

    def report(progress: LoadProgress) -> None:
        if worker.closed:
            raise Cancelled("closed while loading")
        if on_load is not None:
            on_load(progress)

    before = stamps(directory)
    config = read_config(directory)
    version = read_version(directory)
    limit = config.max_position_embeddings
    length = context_length or default_context(limit)
    if length > limit:
        raise EngineError(
            f"--ctx {length:,} is more than the {limit:,} tokens {directory} can take"
        )
    if tokenizer.vocab_size > config.vocab_size:
        raise ModelFormatError(
            f"{directory}: tokenizer.json has {tokenizer.vocab_size:,} ids and config.json "
            f"{config.vocab_size:,}; the two are of different models"
        )
    chosen = choose_for_machine(config, stream_dtype(), verdicts)
    model = load_model(
        directory, on_load=report, context_length=length, operations=chosen.operations
    )
    runtime = Runtime(
        worker=worker,
        model=model,
        vocabulary=tokenizer.vocab_size,
        eos=tokenizer.control(EOS),
        context_length=length,
        steps=Steps(worker, model, tokenizer.vocab_size),
    )
    # The states on disk go by the fingerprint: it has to be of the very files that were loaded.
    refuse_changes(directory, before)
    digest = fingerprint(directory)
    refuse_changes(directory, before)
    return runtime, digest, version, chosen.notice
