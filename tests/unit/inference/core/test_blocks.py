from __future__ import annotations

import numpy as np
import pytest

from inference.core.blocks import BlockPool, OutOfBlocksError


def tokens(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def filled(pool: BlockPool, text: np.ndarray, tenant: str = "a", adapter: str = "") -> list[int]:
    """Blocks of a sequence that ran all of `text`."""
    blocks = pool.allocate(-(-len(text) // pool.block_size))
    parent = pool.root(tenant, adapter)
    for i in range(len(text) // pool.block_size):
        parent = pool.extend(parent, text[i * pool.block_size : (i + 1) * pool.block_size])
        pool.publish(blocks[i], parent)
    return blocks


def test_prefix_is_shared_after_its_owner_left():
    pool = BlockPool(4, 2)
    text = tokens(1, 2, 3, 4, 5)
    first = filled(pool, text)
    pool.release(first)
    assert pool.held == 0
    blocks, hashes = pool.match(pool.root("a", ""), text)
    assert blocks == first[:2]
    assert len(hashes) == 2
    assert pool.held == 2
    assert pool.counts().hit_blocks == 2


def test_last_token_is_never_matched():
    pool = BlockPool(4, 2)
    text = tokens(1, 2, 3, 4)
    filled(pool, text)
    blocks, _ = pool.match(pool.root("a", ""), text)
    assert len(blocks) == 1


@pytest.mark.parametrize(("tenant", "adapter"), [("b", ""), ("a", "x"), ("a:", "")])
def test_other_tenants_and_adapters_find_nothing(tenant, adapter):
    pool = BlockPool(4, 2)
    text = tokens(1, 2, 3)
    filled(pool, text)
    assert pool.match(pool.root("a", ""), text)[0]
    assert not pool.match(pool.root(tenant, adapter), text)[0]


def test_same_block_after_another_prefix_is_another_block():
    pool = BlockPool(8, 2)
    filled(pool, tokens(1, 2, 3, 4))
    assert len(pool.match(pool.root("a", ""), tokens(9, 9, 3, 4, 5))[0]) == 0


def test_least_recently_used_goes_first_and_prefixes_from_their_end():
    pool = BlockPool(4, 2)
    old, new = tokens(1, 2, 3, 4), tokens(5, 6, 7, 8)
    pool.release(filled(pool, old))
    pool.release(filled(pool, new))
    pool.allocate(1)
    blocks, _ = pool.match(pool.root("a", ""), np.append(old, tokens(0)))
    assert len(blocks) == 1
    assert len(pool.match(pool.root("a", ""), np.append(new, tokens(0)))[0]) == 2
    assert pool.counts().evicted_blocks == 1


def test_too_many_blocks_takes_none():
    pool = BlockPool(3, 2)
    pool.allocate(2)
    with pytest.raises(OutOfBlocksError):
        pool.allocate(2)
    assert pool.available == 1


def test_forgetting_drops_content_but_not_holds():
    pool = BlockPool(4, 2)
    text = tokens(1, 2, 3)
    held = filled(pool, text)
    pool.forget()
    assert not pool.match(pool.root("a", ""), text)[0]
    pool.release(held)
    assert pool.available == 4
