"""RFC 6962 Merkle trees over SHA-256: hashes, inclusion and consistency proofs, compact ranges.

Hashes are 32 bytes. Proofs are lists of hashes in the order of RFC 6962, 2.1.1 and 2.1.2: a path begins with the leaf's sibling. Functions that
check give True or False and accept proofs of exactly the right length only.
"""

from __future__ import annotations

import hashlib

MAX_SIZE = (1 << 53) - 1
MAX_PROOF = 63
HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_from_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes | None:
    """The root that an inclusion path leads to (RFC 9162, 2.1.3.2), or None if its length is not that of a path."""
    if not 0 <= index < size <= MAX_SIZE or len(path) > MAX_PROOF:
        return None
    node, last, root = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return None
        if node & 1 or node == last:
            root = node_hash(sibling, root)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            root = node_hash(root, sibling)
        node, last = node >> 1, last >> 1
    return root if last == 0 else None


def included(leaf: bytes, index: int, size: int, path: list[bytes], root: bytes) -> bool:
    """Whether path shows that the leaf with this hash is at index of the tree of that size and root."""
    return len(leaf) == len(root) == HASH_SIZE and root_from_path(leaf, index, size, path) == root


def consistent(size1: int, root1: bytes, size2: int, root2: bytes, path: list[bytes]) -> bool:
    """Whether path shows that the tree (size1, root1) is a prefix of (size2, root2) (RFC 9162, 2.1.4.2)."""
    if not 0 < size1 <= size2 <= MAX_SIZE or len(path) > MAX_PROOF:
        return False
    if size1 == size2:
        return not path and root1 == root2
    if size1 & (size1 - 1) == 0:  # the earlier tree is a complete one: its root begins the path
        path = [root1, *path]
    if not path:
        return False
    node, last = size1 - 1, size2 - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first = node_hash(sibling, first)
            second = node_hash(sibling, second)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and first == root1 and second == root2


class CompactRange:
    """The complete subtrees of a tree of some size, largest first: enough to append leaves and to give the root.

    hashes has one hash for each bit set in size. Raises ValueError if it has not.
    """

    def __init__(self, size: int = 0, hashes: list[bytes] | None = None) -> None:
        self._hashes = list(hashes or [])
        self.size = size
        if size < 0 or len(self._hashes) != size.bit_count():
            raise ValueError(f"a compact range of size {size} has {size.bit_count()} hashes, not {len(self._hashes)}")

    def append(self, leaf: bytes) -> None:
        """Append the leaf with this hash."""
        size, hashes = self.size, self._hashes
        while size & 1:
            leaf = node_hash(hashes.pop(), leaf)
            size >>= 1
        hashes.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        if not self._hashes:
            return EMPTY_ROOT
        root = self._hashes[-1]
        for left in reversed(self._hashes[:-1]):
            root = node_hash(left, root)
        return root
