"""Trains nano's byte-level BPE: `python -m training.tokenizer [OUT]` writes tokenizer.json.

In: Python's standard library, the phrases below and, when `training.tasks` offers them, sample
texts of the tasks. Out: one file, the same for the same inputs. It never holds a token with a
leading blank, so an identifier has the same ids wherever it stands and copying is easy to learn.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
INSTALLED = Path(__file__).parent.parent / "engine" / "nano" / "tokenizer.json"

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
DSML = "｜DSML｜"
# Text and special flag as in the genuine V4 tokenizer; the position in this list is the id.
CONTROL_TOKENS: tuple[tuple[str, bool], ...] = (
    (BOS, True),
    (EOS, True),
    (PAD, True),
    ("<｜User｜>", False),
    ("<｜Assistant｜>", False),
    ("<think>", False),
    ("</think>", False),
    (DSML, False),
    ("<｜latest_reminder｜>", False),
)

# Pieces of the DSML scaffold that are one pre-token, so that a call costs half the tokens. They
# begin and end where a word would be cut anyway: what is copied beside them keeps its ids.
SCAFFOLD = (
    "tool_calls>",
    'invoke name="',
    'parameter name="',
    '" string="true">',
    '" string="false">',
    "<tool_result>",
    "</tool_result>",
    "</",
    "parameter>",
    "invoke>",
)
# One word hump, one run of capitals, one digit, one newline, one run of blanks, one other sign.
WORDS = r"\p{Lu}?[\p{Ll}\p{Lo}\p{M}]+|\p{Lu}+(?!\p{Ll})|\p{Lu}|\p{N}|\n| +|[^\p{L}\p{N}\n ]"

# What requests and answers are made of; the standard library alone would split such words.
PHRASES = (
    "please could you can would replace rename change edit swap substitute update modify instead",
    "show read open display print look contents content create write make new file files folder",
    "directory named called containing function method class variable constant identifier string",
    "text word line lines everywhere every occurrence occurrences all in of with by to into from",
    "run execute test tests suite command pytest unittest make npm cargo go git status diff log",
    "commit branch add changed changes uncommitted modified untracked repository tracked working",
    "Replaced Renamed Created Overwrote Edited Error done Done passed failed failures errors",
    "exit code output nothing to commit no output replacement replacements bytes empty exist",
    "does not exist did you mean old text not found occurs times give more of it or set",
    "start_line max_lines replace_all whole_word true false path content old new command action",
    "message revision staged max_count depth pattern timeout background job timed out after",
    "src lib app tests test docs scripts utils core api client server models views config main",
    "README CHANGELOG Makefile pyproject toml json yaml yml cfg ini txt md py js ts rs go sh html",
    "fetch retry retries timeout config cache user client server login logout parse total price",
    "order item token session page pages load save compute calculate handle process send receive",
    "request response database query logger level debug warning amount balance account address",
    "email password customer product invoice payment report summary message event queue worker",
    "helper service manager builder factory handler loader parser reader writer limit offset delay",
    "width height color title label button window layout image render draw color theme widget",
    "hello thanks what is are the which where how why this that now then also and or for me my",
    "You are ds4-agent, a coding agent. Use the tools to work in this repository. Tools: Tests:",
)


def control_id(text: str) -> int:
    """Id of a control token by its text; ValueError for any other text."""
    return [token for token, _ in CONTROL_TOKENS].index(text)


def new_tokenizer() -> Tokenizer:
    """An untrained tokenizer with nano's pre-tokenizer and decoder."""
    tokenizer = Tokenizer(models.BPE())
    scaffold = "|".join(escape(piece) for piece in SCAFFOLD)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"{scaffold}|{WORDS}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def escape(piece: str) -> str:
    """A regular expression for exactly `piece` (Oniguruma: only `.` and the like need escapes)."""
    return "".join(f"\\{sign}" if sign in r".^$*+?{}[]\|()" else sign for sign in piece)


def corpus() -> Iterator[str]:
    """Texts to count: code, prose, phrases, scaffold; in a fixed order."""
    library = Path(sysconfig.get_paths()["stdlib"])
    packages = (
        "asyncio",
        "collections",
        "email",
        "http",
        "importlib",
        "json",
        "logging",
        "unittest",
    )
    folders = [library, *(library / name for name in packages)]
    for source in (path for folder in folders for path in sorted(folder.glob("*.py"))):
        yield source.read_text(encoding="utf-8", errors="ignore")[:20_000]
    for phrase in PHRASES:
        yield from [phrase + "\n" + phrase.title()] * 150
    # Each scaffold piece must win its merges against every word of the library.
    yield from ["\n".join(SCAFFOLD)] * 20_000
    # Indentation: one token per usual depth.
    yield from ["".join(f"{' ' * depth}x\n" for depth in (2, 4, 8, 12, 16))] * 2_000


def train(texts: Iterator[str]) -> str:
    """The tokenizer.json text for `texts`; exactly VOCABULARY entries."""
    tokenizer = new_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(text, normalized=False) for text, _ in CONTROL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    document = json.loads(tokenizer.to_str())
    special = dict(CONTROL_TOKENS)
    for token in document["added_tokens"]:
        # The BPE trainer marks every control token special; the genuine file does not.
        token["special"] = special[token["content"]]
    if len(document["model"]["vocab"]) != VOCABULARY:
        raise ValueError(f"only {len(document['model']['vocab'])} tokens: the corpus is too small")
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=INSTALLED)
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(train(corpus()), encoding="utf-8")


if __name__ == "__main__":
    main()
