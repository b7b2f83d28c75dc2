"""Tests that every implementation of the storage ports passes. Each has a test module with a class that inherits a contract and has a
`storage`."""

from tests.support.port_contract.attempts import AttemptContract
from tests.support.port_contract.batches import BatchContract
from tests.support.port_contract.common import new_batch
from tests.support.port_contract.parts import PartStoreContract
from tests.support.port_contract.templates import TemplateStoreContract


class ActivityRepositoryContract(BatchContract, AttemptContract):
    """What every `ActivityRepository` does."""


__all__ = ["ActivityRepositoryContract", "PartStoreContract", "TemplateStoreContract", "new_batch"]
