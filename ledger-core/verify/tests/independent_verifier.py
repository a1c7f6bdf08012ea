#!/usr/bin/env python3
"""Checks strongroom.proof.v1 documents. Written from docs/formats.md; needs nothing but Python 3.

usage: independent_verifier.py --vkey KEY [--vkey KEY ...] DOCUMENT...

Prints one JSON line per accepted document; "refused: ..." on stderr and exit code 5 when any is refused.
"""
import argparse
import base64
import hashlib
import json
import sys
import unicodedata
import uuid


class Refused(Exception):
    """The proof must not be believed."""


def require(condition, reason):
    if not condition:
        raise Refused(reason)


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


# Ed25519, RFC 8032: extended coordinates (X, Y, Z, T).
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_1 = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def point_add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def point_mul(scalar, point):
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = point_add(result, point)
        point, scalar = point_add(point, point), scalar >> 1
    return result


def point_decode(encoded):
    number = int.from_bytes(encoded, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    require(y < P, "a curve point is not canonical")
    x2 = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT_OF_MINUS_1 % P
    require((x * x - x2) % P == 0 and not (x == 0 and sign), "a curve point does not decode")
    return (x if x & 1 == sign else P - x, y, 1, (x if x & 1 == sign else P - x) * y % P)


def point_encode(point):
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def has_small_order(point):
    return point_encode(point_mul(8, point)) == point_encode(IDENTITY)


BASE = point_decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def ed25519_verify(public_key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    require(s < L, "the signature's scalar is not reduced")
    a, r = point_decode(public_key), point_decode(signature[:32])
    require(not has_small_order(a) and not has_small_order(r), "a point of the signature has small order")
    digest = hashlib.sha512(signature[:32] + public_key + message).digest()
    k = int.from_bytes(digest, "little") % L
    minus_a = (P - a[0], a[1], a[2], P - a[3])
    expected = point_add(point_mul(s, BASE), point_mul(k, minus_a))
    require(point_encode(expected) == signature[:32], "the signature does not match the text")


# Canonical texts.
def from_base64(text, what):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Refused(f"{what} is not base64") from error
    require(base64.b64encode(data).decode() == text, f"{what} is not canonical base64")
    return data


def from_hex(text, what):
    require(isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef"), f"{what} is not a hash in hex")
    return bytes.fromhex(text)


def has_control_character(text):
    return any(unicodedata.category(character) == "Cc" for character in text)


# Keys and signed checkpoints.
def parse_verifier_key(text):
    parts = text.split("+", 2)
    require(len(parts) == 3, "a verifier key has three parts")
    name, key_id, encoded = parts
    require(1 <= len(name.encode()) <= 256 and not has_control_character(name), "the key's name is not allowed")
    require(not any(character.isspace() for character in name), "the key's name has white space")
    typed = from_base64(encoded, "the key")
    require(len(typed) == 33 and typed[0] == 1, "not an Ed25519 key")
    require(sha256(name.encode(), b"\n", typed)[:4].hex() == key_id, "the key id does not belong to the key")
    require(not has_small_order(point_decode(typed[1:])), "the key has small order")
    return name, key_id, typed[1:]


def parse_checkpoint(body):
    lines = body.split("\n")
    require(len(lines) == 4 and lines[3] == "", "a checkpoint has exactly three lines")
    origin, size, root = lines[:3]
    require(origin and not has_control_character(origin), "the origin is not allowed")
    require(size and set(size) <= set("0123456789") and (size == "0" or size[0] != "0"), "the size is not canonical")
    require(len(size) <= 20 and int(size) < 2**64, "the size exceeds 64 bits")
    root = from_base64(root, "the log root")
    require(len(root) == 32, "the log root is not a hash")
    return origin, int(size), root


def open_checkpoint(text, keys):
    require(len(text.encode()) <= 4096, "the checkpoint is too large")
    body, separator, rest = text.partition("\n\n")
    body += "\n"
    require(separator and rest.endswith("\n") and rest.count("\n") == 1, "not a note with one signature")
    require(rest.startswith("\u2014 "), "not a signature line")
    name, space, encoded = rest[2:-1].partition(" ")
    require(space, "not a signature line")
    blob = from_base64(encoded, "the signature")
    require(len(blob) == 68, "not an Ed25519 signature")
    checkpoint = parse_checkpoint(body)
    matching = [key for key in keys if key[:2] == (name, blob[:4].hex())]
    require(matching, "signed by none of the trusted keys")
    ed25519_verify(matching[0][2], body.encode(), blob[4:])
    return name, checkpoint


# Trees.
def verify_inclusion(leaf, index, size, path, root):
    require(index < size, "the header lies outside the log")
    fn, sn, r = index, size - 1, leaf
    for p in path:
        require(sn != 0, "the log path is too long")
        if fn & 1 or fn == sn:
            r = sha256(b"\x01", p, r)
            while fn & 1 == 0 and fn != 0:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = sha256(b"\x01", r, p)
        fn, sn = fn >> 1, sn >> 1
    require(sn == 0, "the log path is too short")
    require(r == root, "the log root differs")


STATE_EMPTY = b"SPARSE_MERKLE_PLACEHOLDER_HASH__"


def bit(key_hash, position):
    return key_hash[position // 8] >> (7 - position % 8) & 1


def state_leaf(key_hash, value_hash):
    return sha256(b"JMT::LeafNode", key_hash, value_hash)


def fold_state(end, siblings, key_hash, root):
    require(not siblings or siblings[0] != STATE_EMPTY, "the state proof is not collapsed")
    depth, node = len(siblings), end
    for i, sibling in enumerate(siblings):
        pair = (sibling, node) if bit(key_hash, depth - 1 - i) else (node, sibling)
        node = sha256(b"JMT::IntrnalNode", *pair)
    require(node == root, "the state root differs")


def verify_absence(siblings, other_leaf, key_hash, root):
    end = STATE_EMPTY
    if other_leaf is not None:
        other_key, other_value = other_leaf
        require(other_key != key_hash, "absence through the key itself")
        shared = all(bit(other_key, i) == bit(key_hash, i) for i in range(len(siblings)))
        require(shared, "the other leaf stands in another branch")
        end = state_leaf(other_key, other_value)
    fold_state(end, siblings, key_hash, root)


# Layouts.
def u64(data, offset):
    return int.from_bytes(data[offset : offset + 8], "big")


def parse_header(data):
    require(len(data) == 188 and data[:4] == b"SRBH" and data[6:8] == b"\x00\x01", "not a block header")
    version = int.from_bytes(data[4:6], "big")
    require(version in (1, 2), "a block header of another version")
    return {
        "version": version,
        "ledger_id": data[8:24],
        "vault_id": data[24:40],
        "height": u64(data, 40),
        "state_root": data[116:148],
        "time_ms": u64(data, 148),
    }


def parse_leaf(data, kind):
    require(len(data) >= 26 and data[0] == 1, "not a leaf value of version 1")
    require(data[1] == kind, "the leaf is of another kind than the subject")
    require(kind == 1 or len(data) == 26, "the leaf of a relationship carries a value")
    require(len(data) <= 26 + 1_048_576, "the value is too large")
    return {"modified_height": u64(data, 2), "version": u64(data, 10), "expires_at_ms": u64(data, 18), "value": data[26:]}


# The document.
def members(value, names, what):
    require(isinstance(value, dict) and list(value) == names, f"{what} has other members")
    return [value[name] for name in names]


def limited(text, most, what):
    require(isinstance(text, str) and 1 <= len(text.encode()) <= most, f"{what} is empty or too long")
    return text.encode()


def parse_subject(subject):
    """The leaf kind and the key bytes."""
    if isinstance(subject, dict) and list(subject) == ["entity"]:
        (key,) = members(subject["entity"], ["key"], "the entity")
        return 1, b"\x01" + limited(key, 1024, "the key")
    (tuple_,) = members(subject, ["relationship"], "the subject")
    key_bytes = b"\x02"
    texts = members(tuple_, ["resource", "relation", "subject"], "the relationship")
    for text, most in zip(texts, (512, 64, 512)):
        encoded = limited(text, most, "a part of the relationship")
        key_bytes += len(encoded).to_bytes(2, "big") + encoded
    return 2, key_bytes


def hashes(value, most, what):
    require(isinstance(value, list) and len(value) <= most, f"{what} is not a list or too long")
    return [from_hex(text, what) for text in value]


def parse_document(data):
    require(len(data) <= 67_108_864, "the document is too large")
    try:
        document = json.loads(data.decode("utf-8"))
        canonical = (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Refused("the document is not JSON") from error
    require(canonical == data, "the document is not canonical")
    names = ["format", "subject", "leaf_base64", "state_proof", "header_base64", "inclusion", "checkpoint"]
    is_list = isinstance(document, dict) and isinstance(document.get("subject"), dict) and "list" in document["subject"]
    require(is_list or len(data) <= 8_388_608, "the document is too large")
    values = members(document, [*names, "pages"] if is_list else names, "the document")
    require(values[0] == "strongroom.proof.v1", "the document has another format")
    require(all(isinstance(value, str) for value in (values[4], values[6])), "a field has another type")
    require(values[2] is None or isinstance(values[2], str), "a field has another type")
    return values[1:]


def parse_state_proof(state_proof):
    siblings, other_leaf = members(state_proof, ["siblings", "other_leaf"], "the state proof")
    siblings = hashes(siblings, 256, "siblings")
    if other_leaf is not None:
        other_leaf = [from_hex(text, "other_leaf") for text in members(other_leaf, ["key_hash", "value_hash"], "other_leaf")]
    return siblings, other_leaf


def verify_anchor(header_text, inclusion, checkpoint_text, keys):
    """From the signature to the header: what a claim says about both, and the header."""
    path = hashes(inclusion, 64, "inclusion")
    header_bytes = from_base64(header_text, "the header")
    header = parse_header(header_bytes)
    key_name, (origin, size, root) = open_checkpoint(checkpoint_text, keys)
    require(key_name == "strongroom/" + header["ledger_id"].hex(), "the key is that of another ledger")
    require(origin == f"{key_name}/{uuid.UUID(bytes=header['vault_id'])}", "the checkpoint is that of another vault")
    block_hash = sha256(b"\x00", header_bytes)
    verify_inclusion(block_hash, header["height"], size, path, root)
    anchor = {
        "height": header["height"],
        "block_hash": block_hash.hex(),
        "state_root": header["state_root"].hex(),
        "time_ms": header["time_ms"],
        "checkpoint_size": size,
        "checkpoint_root": root.hex(),
        "origin": origin,
        "key_name": key_name,
    }
    return anchor, header


def verify(data, keys):
    values = parse_document(data)
    if len(values) == 7:
        return verify_list(values, keys)
    subject, leaf, state_proof, header_text, inclusion, checkpoint_text = values
    kind, key_bytes = parse_subject(subject)
    siblings, other_leaf = parse_state_proof(state_proof)
    anchor, header = verify_anchor(header_text, inclusion, checkpoint_text, keys)
    record = {"modified_height": 0, "version": 0, "expires_at_ms": 0, "value": b""}
    if leaf is None:
        verify_absence(siblings, other_leaf, sha256(key_bytes), header["state_root"])
    else:
        leaf = from_base64(leaf, "the leaf")
        record = parse_leaf(leaf, kind)
        require(other_leaf is None, "presence names another leaf")
        fold_state(state_leaf(sha256(key_bytes), sha256(leaf)), siblings, sha256(key_bytes), header["state_root"])
    return {
        "ledger_id_hex": header["ledger_id"].hex(),
        "vault_id_hex": header["vault_id"].hex(),
        "present": leaf is not None,
        "value_hex": record["value"].hex() if leaf is not None and kind == 1 else None,
        "version": record["version"],
        "modified_height": record["modified_height"],
        "expires_at_ms": record["expires_at_ms"],
        **anchor,
    }


# Lists.
ALL_KEYS = (bytes(32), b"\xff" * 32)


def member_key(relation, subject):
    return sha256(relation)[:2] + sha256(relation, b"\x00", subject)[:30]


class Page:
    """Reads the nodes of one page, which covers the keys from `first` to `last`."""

    def __init__(self, data, first, last):
        self.data, self.offset, self.first, self.last, self.members = data, 0, first, last, []

    def take(self, count):
        require(self.offset + count <= len(self.data), "the page's nodes end early")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def text(self, most):
        text = self.take(int.from_bytes(self.take(2), "big"))
        require(1 <= len(text) <= most and b"\x00" not in text, "a member is not well-formed")
        try:
            text.decode("utf-8")
        except ValueError as error:
            raise Refused("a member is not UTF-8") from error
        return text

    def node(self, low, high, depth):
        """The hash and the kind of the subtree over the keys from `low` to `high`."""
        outside = high < self.first or self.last < low
        kind = self.take(1)[0]
        if kind == 0:
            return STATE_EMPTY, kind
        if kind == 1:
            require(outside, "a subtree inside the range is withheld")
            pruned = self.take(32)
            require(pruned != STATE_EMPTY, "an empty subtree shows its hash")
            return pruned, kind
        require(kind in (2, 3), "a node of an unknown kind")
        require(not outside, "a subtree outside the range is shown")
        if kind == 2:
            relation, subject = self.text(64), self.text(512)
            key = member_key(relation, subject)
            require(low <= key <= high, "a member stands in another's place")
            if self.first <= key <= self.last:
                self.members.append((relation.decode(), subject.decode(), key))
            return state_leaf(key, sha256(b"\x05", relation, b"\x00", subject)), kind
        require(depth < 256, "the nodes go too deep")
        half = 1 << (255 - depth)
        left_high = (int.from_bytes(high, "big") & ~half).to_bytes(32, "big")
        right_low = (int.from_bytes(low, "big") | half).to_bytes(32, "big")
        left, left_kind = self.node(low, left_high, depth + 1)
        right, right_kind = self.node(right_low, high, depth + 1)
        require((left_kind, right_kind) not in ((0, 0), (0, 2), (2, 0)), "a subtree is not collapsed")
        return sha256(b"JMT::IntrnalNode", left, right), kind


def verify_pages(pages, asked_first, asked_last, set_root):
    """Relation, subject and key of every member, in key order."""
    require(isinstance(pages, list) and len(pages) <= 16_384, "the pages are no list or too many")
    found, first = [], asked_first
    for number, page in enumerate(pages):
        last, nodes = members(page, ["last_key", "nodes_base64"], "a page")
        last = from_hex(last, "last_key")
        require(first is not None and first <= last <= asked_last, "a page does not follow the one before")
        require(isinstance(nodes, str), "a field has another type")
        reader = Page(from_base64(nodes, "the nodes"), first, last)
        root, _ = reader.node(*ALL_KEYS, 0)
        require(reader.offset == len(reader.data), "bytes follow the nodes")
        require(root == set_root, "the set's root differs")
        if reader.members:
            require(last in (asked_last, reader.members[-1][2]), "a page does not end with its last member")
        else:
            require(number == 0 and last == asked_last, "a page is empty")
        found += reader.members
        first = None if last == asked_last else (int.from_bytes(last, "big") + 1).to_bytes(32, "big")
    require(first is None, "the pages end before the list")
    return found


def verify_list(values, keys):
    subject, leaf, state_proof, header_text, inclusion, checkpoint_text, pages = values
    (asked,) = members(subject, ["list"], "the subject")
    resource, relation = members(asked, ["resource", "relation"], "the list")
    key_hash = sha256(b"\x03", limited(resource, 512, "the resource"))
    first, last = ALL_KEYS
    if relation is not None:
        prefix = sha256(limited(relation, 64, "the relation"))[:2]
        first, last = prefix + first[2:], prefix + last[2:]
    siblings, other_leaf = parse_state_proof(state_proof)
    anchor, header = verify_anchor(header_text, inclusion, checkpoint_text, keys)
    require(header["version"] >= 2, "the header covers no lists")
    if leaf is None:
        verify_absence(siblings, other_leaf, key_hash, header["state_root"])
        require(pages == [], "pages of a resource without relationships")
        count, found = 0, []
    else:
        leaf = from_base64(leaf, "the leaf")
        require(len(leaf) == 42 and leaf[:2] == b"\x01\x03", "not the leaf of a list")
        count = u64(leaf, 2)
        require(count >= 1, "a list of nothing has no leaf")
        require(other_leaf is None, "presence names another leaf")
        fold_state(state_leaf(key_hash, sha256(leaf)), siblings, key_hash, header["state_root"])
        found = verify_pages(pages, first, last, leaf[10:])
        require(len(found) == count if relation is None else len(found) <= count, "the count differs")
    shown = sorted((name, of) for name, of, _ in found if relation in (None, name))
    return {
        "ledger_id_hex": header["ledger_id"].hex(),
        "vault_id_hex": header["vault_id"].hex(),
        "members": [{"relation": name, "subject": of} for name, of in shown],
        "resource_count": count,
        **anchor,
    }


def main():
    parser = argparse.ArgumentParser(description="Checks strongroom.proof.v1 documents.")
    parser.add_argument("--vkey", action="append", required=True, help="a verifier key that you trust; may repeat")
    parser.add_argument("document", nargs="+", help="a .proof.json file")
    arguments = parser.parse_args()
    code = 0
    try:
        keys = [parse_verifier_key(text) for text in arguments.vkey]
    except Refused as error:
        parser.error(f"--vkey: {error}")
    for path in arguments.document:
        try:
            with open(path, "rb") as file:
                print(json.dumps(verify(file.read(), keys)))
        except Refused as error:
            print(f"{path}: refused: {error}", file=sys.stderr)
            code = 5
    return code


if __name__ == "__main__":
    sys.exit(main())
