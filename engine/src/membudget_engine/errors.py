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
├── CollectionMissing    no such collection, or none that can be served
├── ReadOnly             a write came to an engine that only reads
├── SourceInvalid        a file to be ingested is not what its name says
├── WriteInvalid         what was to be written is no chunk of this collection
├── WriteFailed          the volume did not take a write; nothing of it holds
├── WriteLogInvalid      the log of writes cannot be read
├── SealPending          no room for more writes until those before them are sealed
├── BodyLate             the body of a request came too slowly
├── BodyTooLarge         it has more bytes than one request may
├── BodyEnded            nobody is there any more to read it
├── UploadMissing        nothing was ingested under this name
├── UploadRunning        the same upload is under way
├── UploadDiffers        what was sent again is not what it was, or begins elsewhere
├── SessionMissing       no such session, or none any more
├── SessionsFull         no room for a session
├── FileMissing          no such source file, or none that may be read
├── HistoryUnavailable   git could not tell the history of a file
├── MeasurementRunning   an optimisation is being measured
├── EmbedderUnavailable  the embedding server did not answer, or not in time
├── EmbeddingInvalid     its answer is not the vectors that were asked for
├── VectorInvalid        a vector that float16 cannot hold, or of another length
└── VectorStoreFailed    the disk did not take or give back a vector

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
    """A chunk store, or its texts, is none, of another version, or damaged; or a chunk to be written came twice."""


class ChunkStoreClosed(EngineError):
    """The chunk store, or its texts, was closed, as after a reload: ask the collection for its present store."""


class ChunkMissing(EngineError):
    """A row that the store, or its texts, does not have: index and store are of different generations."""


class BuildFailed(EngineError):
    """A generation could not be built. What was there before is untouched."""


class BuildInProgress(EngineError):
    """Another process builds in the same collection: wait for it, or end it."""


class CollectionMissing(EngineError):
    """No collection of that name is open, or none can be: build one."""


class ReadOnly(EngineError):
    """This engine only reads, or the collection could not be opened for writing: write to the writer."""


class SourceInvalid(EngineError):
    """A file to be ingested is torn, foreign, or has what cannot be stored; what was staged before it stays."""


class WriteInvalid(EngineError):
    """A chunk without an id, or a vector of another dimension or with NaN or infinity: the caller's mistake."""


class WriteFailed(EngineError):
    """The volume is full, read-only or failing: nothing of this write holds, everything before it does. Retriable."""


class WriteLogInvalid(EngineError):
    """The log of a collection's writes is damaged or foreign: writes are refused, the last generation is served."""


class SealPending(EngineError):
    """Unsealed writes fill their bound, and are being sealed or wait for room to: try again in a moment."""


class BodyLate(EngineError):
    """The body of a request stood still, or took too long in all. Retriable."""


class BodyTooLarge(EngineError):
    """The body has more bytes than one request may have: send it in parts."""


class BodyEnded(EngineError):
    """Whoever was to read the body is stopping. Retriable."""


class UploadMissing(EngineError):
    """Nothing was ingested under this name, or so long ago that it is forgotten."""


class UploadRunning(EngineError):
    """This upload is being taken on another connection: wait until that ends. Retriable."""


class UploadDiffers(EngineError):
    """What came differs from what was acknowledged under this name: take another name, or send the same again."""


class SessionMissing(EngineError):
    """No session of that id, or none any more: start one."""


class SessionsFull(EngineError):
    """No room for a session, and nothing that may go for it; retriable."""


class FileMissing(EngineError):
    """No such source file: it is not of the collection's tree, is no plain file, or is larger than is served."""


class HistoryUnavailable(EngineError):
    """Git is not installed, the tree is no repository, or it took too long: the message says which."""


class MeasurementRunning(EngineError):
    """One optimisation at a time, or the figures of each would be those of the other too."""


class EmbedderUnavailable(EngineError):
    """The embedding server did not answer in time, or says that it cannot now; retriable."""


class EmbeddingInvalid(EngineError):
    """The embedding server refused, or its answer has too few vectors, another dimension, NaN, or too many bytes."""


class VectorInvalid(EngineError):
    """A vector has another length, or a value that is no number or beyond float16: the caller's mistake."""


class VectorStoreFailed(EngineError):
    """The disk did not take a vector, which is not kept then, or did not give one back; or the store was closed."""
