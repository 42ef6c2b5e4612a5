"""The wire format of step records: blocks of bytes, which an event file holds."""

from trainer.wire.block import Block, encode
from trainer.wire.reading import decode
from trainer.wire.sheet import OF_LAYERS, OF_PARAMETERS, Sheet, sheets

PLUGIN = "gradients"  # the TensorBoard plugin that the blocks belong to
RECORDS_TAG = "records"  # a block's event has its first record's step; of one step the last counts

__all__ = ["OF_LAYERS", "OF_PARAMETERS", "PLUGIN", "RECORDS_TAG", "Block", "Sheet", "decode",
           "encode", "sheets"]  # fmt: skip
