"""Writes tests/golden/weights/protocol4.pth: parameters, views with strides, and fp8, in a state dict
within a dict of other things, by pickle protocol 4.

    python tests/golden/pickles.py

Made without torch: Python's own pickle writes the calls that torch.save is known to write
(torch._utils._rebuild_tensor_v2 and _v3, _rebuild_parameter). No torch was at hand to compare.
"""

import collections
import io
import pathlib
import pickle
import struct
import sys
import types
import zipfile

OUT = pathlib.Path(__file__).parent / "weights" / "protocol4.pth"


def stand_in(module, name):
    """A function that pickles as module.name."""
    made = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(sys.modules.setdefault(module, types.ModuleType(module)), name, made)
    return made


REBUILD = stand_in("torch._utils", "_rebuild_tensor_v2")
REBUILD_TYPED = stand_in("torch._utils", "_rebuild_tensor_v3")
PARAMETER = stand_in("torch._utils", "_rebuild_parameter")
FLOAT, UNTYPED = stand_in("torch", "FloatStorage"), stand_in("torch.storage", "UntypedStorage")
E4M3 = stand_in("torch", "float8_e4m3fn")


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Storage:
    def __init__(self, kind, key, count):
        self.id = ("storage", kind, key, "cpu", count)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.id if isinstance(value, Storage) else None


def main():
    floats = Storage(FLOAT, "0", 6)
    hooks = collections.OrderedDict
    plain = Call(REBUILD, floats, 0, (2, 3), (3, 1), False, hooks())
    state = collections.OrderedDict(
        parameter=Call(PARAMETER, plain, True, hooks()),
        transposed=Call(REBUILD, floats, 0, (3, 2), (1, 3), False, hooks()),
        column=Call(REBUILD, floats, 1, (2,), (3,), False, hooks()),
        fp8=Call(REBUILD_TYPED, Storage(UNTYPED, "1", 4), 1, (3,), (1,), False, hooks(), E4M3),
    )
    pickled = io.BytesIO()
    whole = {"epoch": 7, "loss": 0.5, "history": [1.0, None], "name": b"x", "state_dict": state}
    Pickler(pickled, protocol=4).dump(whole)
    with zipfile.ZipFile(OUT, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("m/data.pkl", pickled.getvalue())
        archive.writestr("m/byteorder", "little")
        archive.writestr("m/data/0", struct.pack("<6f", *range(6)))
        archive.writestr("m/data/1", bytes([0, 0x38, 0x40, 0xC8]))


if __name__ == "__main__":
    main()
