"""`saformer-import`: a checkpoint of an original repository in, one of ours out.

Words with `=` are the overrides of a training, composed as there: they build the network that the
weights are for.
"""

from pathlib import Path

from saformer.commands.words import WordParser, names_and_settings
from saformer.config.check import check, to_dict
from saformer.config.overrides import compose
from saformer.errors import CheckpointError, SettingError
from saformer.escape import say

EXAMPLES = """\
  model_best.pth.tar spikformer.ckpt model=spikformer_4_384 dataset=cifar10
  checkpoint-199.pth qkformer.ckpt model=qkformer_10_384 dataset=imagenet dataset.crop_pct=0.875

and then: saformer-eval ckpt_path=spikformer.ckpt

The settings are those of the network that was trained, and docs/interop.md has them for each
original: what contradicts its weights or its code is refused. OUT is never overwritten.
"""


def run(words: list[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit code, 0.

    Raises:
        SettingError: A word makes no sense.
        CheckpointError: The file cannot be read, its weights do not fit, or OUT exists.
    """
    source, out, settings = _parse(words)
    if out.exists():
        raise CheckpointError(f"{out} exists, and nothing is overwritten: name another file")
    config = check(compose(settings))
    from saformer.interop.convert import convert, numberless
    from saformer.interop.files import read_weights, write_checkpoint
    from saformer.training.module import SAFormerModule

    weights = read_weights(source)
    module = SAFormerModule(config, to_dict(config))
    try:
        converted = convert(weights, module)
    except CheckpointError as error:
        raise CheckpointError(f"{source}: {error}") from None
    write_checkpoint(out, converted, module, source)
    original, count = converted.original, sum(p.numel() for p in module.backbone.parameters())
    say(
        f"{out}: {original.name} ({original.source}), {count:,} parameters, as {config.model.name} "
        f"on {config.dataset.name}, T={config.timesteps}"
    )
    if converted.left_out:
        count = sum(weights[name].numel() for name in converted.left_out)
        names = ", ".join(dict.fromkeys(map(numberless, converted.left_out)))
        say(f"left out, since no forward pass reads them ({count:,} parameters): {names}")
    if original.remark and not config.attention.batch_leak:
        print(original.remark)
    return 0


def _parse(words: list[str]) -> tuple[Path, Path, list[str]]:
    """The two files, and the settings."""
    parser = WordParser(
        "saformer-import",
        usage="saformer-import CHECKPOINT OUT model=NAME dataset=NAME [setting=value ...]",
        description="Turn a checkpoint of Spikformer, Spikingformer, Spike-driven Transformer or "
        "QKFormer, of their authors' code, into one of ours.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "words", metavar="CHECKPOINT OUT setting=value", nargs="*", help="see below"
    )
    names, settings = names_and_settings(parser.parse_intermixed_args(words).words)
    if len(names) != 2:
        raise SettingError(
            f"two files are wanted, not {len(names)}: type saformer-import CHECKPOINT OUT "
            "model=NAME dataset=NAME"
        )
    return Path(names[0]), Path(names[1]), settings
