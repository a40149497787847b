#!/usr/bin/env python3
"""Read a dataset and a checkpoint of nsm with h5py alone, and check that they are understood.

    read_h5.py DATASET.h5 CHECKPOINT.h5

Prints what both hold; for a two-layer GCN it computes the model's test accuracy anew, which must be
the one that the checkpoint says.  The layout is described in doc/format.md.
"""
import sys
import h5py
import numpy as np


def features_of(node):
    """[n, F] as a dense array, from dense or sparse storage."""
    if "features" in node:
        return node["features"][:]
    n, width = node.attrs["count"], node.attrs["features"]
    x = np.zeros((n, width), np.float32)
    row = np.repeat(np.arange(n), np.diff(node["ptr"][:]))
    x[row, node["idx"][:]] = node["val"][:]
    return x


def settings_of(checkpoint):
    """The run's configuration: flat YAML, one key a line."""
    text = checkpoint["run/config"][0].decode()
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def gcn(x, src, dst, weights):
    """Kipf and Welling's two layers: S relu(S x W1 + b1) W2 + b2."""
    n = len(x)
    keep = src != dst
    src, dst = np.append(src[keep], np.arange(n)), np.append(dst[keep], np.arange(n))
    degree = np.bincount(dst, minlength=n)
    scale = 1 / np.sqrt(degree[src] * degree[dst])
    for layer in ("conv1", "conv2"):
        h = x @ weights[layer + ".lin.weight"][:].T
        x = np.zeros_like(h)
        np.add.at(x, dst, scale[:, None] * h[src])
        x += weights[layer + ".bias"][:]
        if layer == "conv1":
            x = np.maximum(x, 0)
    return x


def main(dataset_path, checkpoint_path):
    with h5py.File(dataset_path) as data, h5py.File(checkpoint_path) as checkpoint:
        node = data["nodes"][data.attrs["target"].decode()]
        print(f"dataset {data.attrs['name'].decode()}: {node.attrs['count']} nodes, {node.attrs['features']} features")
        for name, edges in data["edges"].items():
            print(f"  edges {name}: {edges.attrs['count']}")
        settings, run, weights = settings_of(checkpoint), checkpoint["run"].attrs, checkpoint["weights"]
        print(f"checkpoint of epoch {run['epoch']}, model {settings['model']}")
        for name, array in weights.items():
            print(f"  {name} {list(array.shape)}")
        if settings["model"] != "gcn" or settings["layers"] != "2":
            return 0

        x = features_of(node)
        if settings["row_normalize"] == "true":
            x = x / np.maximum(x.sum(1, keepdims=True), 1e-12)
        edges = data["edges"]
        src = np.concatenate([e["src"][:] for e in edges.values()])
        dst = np.concatenate([e["dst"][:] for e in edges.values()])
        logits = gcn(x, src, dst, weights)
        split = settings["split"].strip('"') or ("default" if "default" in data["splits"] else next(iter(data["splits"])))
        test = data["splits"][split]["test"][:]
        accuracy = np.mean(logits[test].argmax(1) == data["labels/class"][:][test])
        print(f"test accuracy {accuracy:.4f}, the checkpoint says {run['test_score']:.4f}")
        return 0 if abs(accuracy - run["test_score"]) < 0.005 else 1


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
