"""Every error the engine raises on purpose. Each message names the file or value and says what to do.

EngineError
├── ManifestInvalid      the manifest cannot be read
├── FileDamaged          a file differs from its manifest
├── IndexInvalid         an index file is not what its manifest says
├── IndexClosed          a query or page-out came after close
├── QueryInvalid         query vectors of a wrong shape or kind
├── ChunkStoreInvalid    a chunk store cannot be read or written
├── ChunkStoreClosed     a read came after close
├── ChunkMissing         a row that the store does not have
├── BuildFailed          a generation could not be built; nothing was published
├── BuildInProgress      another builder works on the same collection
└── CollectionMissing    no such collection, or none that can be served

Errors of the operating system (no space, no permission) pass through as OSError.
"""


class EngineError(Exception):
    """Base of all; catch it where a request is answered."""


class ManifestInvalid(EngineError):
    """A manifest is missing, unreadable, or of another version: take another generation or rebuild."""


class FileDamaged(EngineError):
    """A file of a generation is missing, or its size or sha256 differs: take another generation or rebuild."""


class IndexInvalid(EngineError):
    """An index file is of a type that is not allowed, or differs from its manifest, or could not be mapped."""


class IndexClosed(EngineError):
    """The index was closed, as after a reload: ask the collection for its present index."""


class QueryInvalid(EngineError):
    """Query vectors have a wrong shape or element type, or k is not positive: the caller's mistake."""


class ChunkStoreInvalid(EngineError):
    """A chunk store is no chunk store, of another version, or damaged; or a chunk to be written came twice."""


class ChunkStoreClosed(EngineError):
    """The chunk store was closed, as after a reload: ask the collection for its present store."""


class ChunkMissing(EngineError):
    """A row that the store does not have: index and store are of different generations."""


class BuildFailed(EngineError):
    """A generation could not be built. What was there before is untouched."""


class BuildInProgress(EngineError):
    """Another process builds in the same collection: wait for it, or end it."""


class CollectionMissing(EngineError):
    """No collection of that name is open, or none can be: build one."""
