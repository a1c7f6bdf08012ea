#!/usr/bin/env python3
"""Checks a log in the layout of C2SP tlog-tiles. Written from c2sp.org/tlog-tiles and c2sp.org/tlog-checkpoint; needs
nothing but Python 3.

usage: tlog_tiles_verifier.py --vkey KEY [--vkey KEY ...] FOLDER

Prints one JSON line about a log that holds; "refused: ..." on stderr and exit code 5 when it does not.
"""
import argparse
import json
import pathlib
import sys

from independent_verifier import Refused, open_checkpoint, parse_verifier_key, require, sha256

WIDTH = 256


def node(left, right):
    return sha256(b"\x01", left, right)


def tree_root(hashes):
    """The Merkle tree hash over hashes of subtrees of equal, complete size (RFC 6962 section 2.1)."""
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return node(tree_root(hashes[:split]), tree_root(hashes[split:]))


def number_path(number):
    path = f"{number % 1000:03}"
    while number >= 1000:
        number //= 1000
        path = f"x{number % 1000:03}/{path}"
    return path


class Log:
    def __init__(self, folder, size):
        self.folder, self.size = folder, size

    def read(self, kind, number, width):
        partial = "" if width == WIDTH else f".p/{width}"
        path = self.folder / "tile" / kind / f"{number_path(number)}{partial}"
        try:
            return path.read_bytes()
        except OSError as error:
            raise Refused(f"{path} cannot be read") from error

    def level_size(self, level):
        """How many hashes a level has: one for each complete subtree of 256**level leaves."""
        return self.size >> (8 * level)

    def tiles(self, kind, count):
        """Number and width of each tile or bundle of a level with so many hashes."""
        for number in range(count // WIDTH):
            yield number, WIDTH
        if count % WIDTH:
            yield count // WIDTH, count % WIDTH

    def tile(self, level, number, width):
        data = self.read(str(level), number, width)
        require(len(data) == 32 * width, f"tile {number} of level {level} has {len(data)} bytes")
        return [data[at:at + 32] for at in range(0, len(data), 32)]

    def entries(self):
        for number, width in self.tiles("entries", self.size):
            data, at = self.read("entries", number, width), 0
            for _ in range(width):
                length = int.from_bytes(data[at:at + 2], "big")
                entry = data[at + 2:at + 2 + length]
                require(len(entry) == length and at + 2 <= len(data), f"bundle {number} is cut off")
                at += 2 + length
                yield entry
            require(at == len(data), f"bundle {number} has more than its entries")


def levels_from_entries(log):
    """Every hash that the tiles must have, from the entries alone."""
    hashes = [sha256(b"\x00", entry) for entry in log.entries()]
    leaves, levels = hashes, []
    while hashes:
        levels.append(hashes)
        hashes = [tree_root(hashes[at:at + WIDTH]) for at in range(0, len(hashes) - WIDTH + 1, WIDTH)]
    return leaves, levels


def root_from_partial_tiles(log):
    """The root as a client computes it that has only the right edge of the tree: one tile of each level."""
    root = None
    level = 0
    while log.level_size(level):
        count = log.level_size(level)
        if count % WIDTH:
            # Complete subtrees of 256**level leaves that no higher level covers.
            edge = log.tile(level, count // WIDTH, count % WIDTH)
            while edge:
                # The smallest complete subtree stands at the right end.
                smallest = len(edge) & -len(edge)
                part = tree_root(edge[-smallest:])
                root = part if root is None else node(part, root)
                edge = edge[:-smallest]
        level += 1
    return root


def verify(folder, keys):
    text = (folder / "checkpoint").read_bytes()
    _, (origin, size, root) = open_checkpoint(text.decode("utf-8"), keys)
    require(size > 0, "the log is empty")
    log = Log(folder, size)
    leaves, levels = levels_from_entries(log)
    require(len(leaves) == size, "the bundles have another number of entries")
    require(tree_root(leaves) == root, "the entries do not lead to the checkpoint")
    require(root_from_partial_tiles(log) == root, "the tiles do not lead to the checkpoint")
    checked = 0
    for level, hashes in enumerate(levels):
        for number, width in log.tiles(str(level), len(hashes)):
            start = number * WIDTH
            require(log.tile(level, number, width) == hashes[start:start + width], f"tile {number} of level {level} differs")
            checked += 1
    return {"origin": origin, "size": size, "root": root.hex(), "levels": len(levels), "tiles": checked}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--vkey", action="append", required=True)
    parser.add_argument("folder", type=pathlib.Path)
    arguments = parser.parse_args()
    try:
        print(json.dumps(verify(arguments.folder, [parse_verifier_key(text) for text in arguments.vkey])))
    except (Refused, OSError, UnicodeDecodeError) as refusal:
        print(f"refused: {refusal}", file=sys.stderr)
        return 5
    return 0


if __name__ == "__main__":
    sys.exit(main())
