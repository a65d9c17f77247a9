"""`saformer-import`: convert a checkpoint of an original repository into one of ours.

Words with `=` are overrides, composed as for a training. They build the network for the weights.
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

Type the settings of the network that was trained; docs/interop.md has them for each original.
Settings that contradict its weights or its code are refused. OUT is never overwritten.
"""


def run(words: list[str]) -> int:
    """Carry out one command line.

    Returns:
        The exit code, 0.

    Raises:
        SettingError: A word is wrong.
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
    """Split the words into the two files and the settings."""
    parser = WordParser(
        "saformer-import",
        usage="saformer-import CHECKPOINT OUT model=NAME dataset=NAME [setting=value ...]",
        description="Convert a checkpoint of the authors' code of Spikformer, Spikingformer, "
        "Spike-driven Transformer or QKFormer into one of ours.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "words", metavar="CHECKPOINT OUT setting=value", nargs="*", help="see below"
    )
    names, settings = names_and_settings(parser.parse_intermixed_args(words).words)
    if len(names) != 2:
        raise SettingError(
            f"two files are needed, not {len(names)}: type saformer-import CHECKPOINT OUT "
            "model=NAME dataset=NAME"
        )
    return Path(names[0]), Path(names[1]), settings
