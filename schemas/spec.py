"""The job spec: a user's settings for a job, frozen, and checked when built."""

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from schemas.section import ONE_OR_MORE, Section
from schemas.tasks import (
    TAG,
    TASKS,
    ClassifierSpec,
    DetectorSpec,
    EmbedderSpec,
    ModelSpec,
    TaggerSpec,
    boxes_of,
)
from schemas.words import value_text

ManifestFormat = Literal["parquet", "csv", "jsonl", "text", "images", "tar"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]
Runtime = Literal["auto", "torch", "onnxruntime"]
Fact = Literal["exif", "phash"]

AUTO_BATCH = {"cpu": 1, "cuda": 64}
"""Images in a batch; more gain nothing on a CPU: docs/decisions/0008-onnx-runtime-on-cpus.md."""

AUTO_READS = {"cpu": 16, "cuda": 256, "decoder": 64}
"""Concurrent reads of an actor by device. A core labels 30 images a second and decodes 700; a GPU may label
2,500, each of which takes 40 ms to arrive."""


MAX_THROTTLE_TIMEOUT_S = 600
"""Longest `throttle_timeout_s`; a process without any result for longer would count as hung."""


HARMLESS_HEADERS = (
    *("accept", "accept-language", "cache-control", "dnt", "from", "origin", "pragma", "referer"),
    *("upgrade-insecure-requests", "user-agent"),
)
"""Headers of requests whose values are no secrets; also those whose names begin with "sec-"."""

OWN_HEADERS = (
    *("accept-encoding", "connection", "content-length", "expect", "host", "if-range", "keep-alive"),
    *("proxy-authorization", "range", "te", "trailer", "transfer-encoding", "upgrade"),
)
"""Headers that raylabel sets itself."""

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FROM_VARIABLE = re.compile(r"(?:[A-Za-z][\w-]* )?env:[A-Za-z_]\w*", re.ASCII)


def is_harmless(header: str) -> bool:
    """Whether the value of a header of requests is no secret, by its name."""
    return header.lower() in HARMLESS_HEADERS or header.lower().startswith("sec-")


def _assert_headers(headers: dict[str, str]) -> dict[str, str]:
    """Refuses headers that no request can have, and values that may be secrets; shows no such value."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"found the name {name!r}; allowed: letters, digits and -")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f".{name}: raylabel sets it itself; allowed: other headers")
        if not is_harmless(name) and not _FROM_VARIABLE.fullmatch(value):
            raise ValueError(
                f".{name}: a job spec holds no secrets; allowed: env:VARIABLE, or a word before it "
                "as in 'Bearer env:TOKEN', with the variable set on every node"
            )
        if not value.isprintable() or not value.isascii():
            raise ValueError(f".{name}: found {value!r}; allowed: printable ASCII, in one line")
    if len({name.lower() for name in headers}) < len(headers):
        raise ValueError(f"found one name twice in {', '.join(headers)}; allowed: each once")
    return headers


Headers = Annotated[dict[str, str], AfterValidator(_assert_headers)]
"""Headers of requests over HTTP. A value "env:NAME", or a word and "env:NAME", is that of a variable."""

_ENDPOINT, _VARIABLE = r"^https?://[^/@?#]+/?$", r"^[A-Za-z_][A-Za-z0-9_]*$"


class ManifestSpec(Section):
    """The images: files that list or contain them, or a folder or glob of image files.

    Attributes:
        uri: one file, folder or glob, or a list of them; a path or any fsspec URL.
        format: "auto" decides by the file names; "images" lists the images below a folder or glob.
        uri_column: the column that holds each image's path or URL.
        image_column: the column of a Parquet file that holds the images themselves; "auto": the only one that
            can, if there is no `uri_column`.
        image_id_column: the column that holds the user's own ids; None: "image_id" if there is one.
        base: the folder that relative image paths start from; None: the folder of the manifest file.
    """

    uri: str | list[str] = Field(min_length=1)
    format: Literal["auto"] | ManifestFormat = "auto"
    uri_column: str = Field("uri", min_length=1)
    image_column: str = Field("auto", min_length=1)
    image_id_column: str | None = None
    base: str | None = None

    @property
    def uris(self) -> list[str]:
        """`uri` as a list."""
        return [self.uri] if isinstance(self.uri, str) else self.uri


class FetchSpec(Section):
    """How image files are read.

    Attributes:
        concurrency: concurrent reads of each actor; "auto": 256 with a GPU, 16 on a CPU, 64 in an actor that
            only decodes.
        attempts: attempts at one image before it is a failed row.
        timeout_s: seconds that one attempt may take.
        throttle_timeout_s: seconds for which an image is retried, however often, while the store throttles;
            meanwhile each actor reads fewer at once.
        rate: the most reads that the whole job starts in a second; None: no limit.
        max_bytes: a larger file is a failed row (TOO_LARGE).
        headers: sent with each HTTP request of the job, for images and all else; a value "env:NAME", or a
            word and "env:NAME", is that of an environment variable.
    """

    concurrency: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = "auto"
    attempts: int = Field(4, ge=1, le=20)
    timeout_s: float = Field(30, gt=0)
    throttle_timeout_s: float = Field(300, ge=0, le=MAX_THROTTLE_TIMEOUT_S)
    rate: float | None = Field(None, gt=0)
    max_bytes: int = Field(256 * 2**20, ge=1)
    headers: Headers = Field(default_factory=dict)

    def reads(self, device: str) -> int:
        """Concurrent reads of an actor whose models run on "cpu" or "cuda", or of a "decoder"."""
        return AUTO_READS[device] if self.concurrency == "auto" else self.concurrency

    def share_of(self, actors: int) -> "FetchSpec":
        """The settings for each of several actors, which share the rate evenly."""
        return self.model_copy(update={"rate": self.rate and self.rate / actors})


class DecodeSpec(Section):
    """How files become pixels.

    Attributes:
        max_pixels: an image of more pixels (width times height) is a failed row (TOO_LARGE), refused before
            memory is allocated for it.
        timeout_s: seconds of processor time that decoding one image may take; one that takes longer is a
            failed row (TIMEOUT).
    """

    max_pixels: int = Field(120_000_000, ge=1)
    timeout_s: float = Field(60, gt=0)


class ActorRange(Section):
    """A number of actors that changes with the cluster's nodes.

    Attributes:
        min: the fewest actors; a job waits until the cluster has room for them.
        max: the most actors.
    """

    min: int = Field(ge=1)
    max: int = Field(ge=1)

    @field_validator("max")
    @classmethod
    def _is_a_range(cls, maximum: int, info: ValidationInfo) -> int:
        if maximum < info.data.get("min", 1):
            raise ValueError(f"found {maximum}, below min {info.data['min']}; allowed: min or more")
        return maximum


class ComputeSpec(Section):
    """Where and how the models run.

    Attributes:
        device: "auto" is the GPU if there is one.
        actors: actors with a copy of the models each; "auto": as many as fit when the job begins, one for
            each GPU or CPU core; a range: as many of them as fit at any time.
        cpus: CPUs of each actor on its node; "auto": its share of a node when the job begins.
        resources: Ray's custom resources that each actor takes from its node, such as
            "accelerator_type:L4": 0.001; no actor is placed on a node without them.
        decoders: actors of one CPU each, on any node, that fetch and decode for the actors with the models;
            "auto": as many as there are spare CPUs when the job begins; 0: images are decoded where they are
            labelled.
        batch_size: images in one pass of a model; "auto": 64 on a GPU, 1 on a CPU.
        precision: "auto" is bfloat16 (or float16) autocast on a GPU and float32 on a CPU.
        timeout_s: seconds of processor time that a model may take for one image, in the thread that runs it;
            one that takes longer is a failed row (TIMEOUT).
        runtime: computes the networks; "auto" is torch on a GPU; on a CPU, ONNX Runtime for models that are
            known to run in it, unless the manifest is short.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    actors: Literal["auto"] | Annotated[int, Field(ge=1)] | ActorRange = "auto"
    cpus: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    resources: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    decoders: Literal["auto"] | Annotated[int, Field(ge=0)] | ActorRange = 0
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1, le=4096)] = "auto"
    precision: Precision = "auto"
    runtime: Runtime = "auto"
    timeout_s: float = Field(120, gt=0)

    @field_validator("resources")
    @classmethod
    def _are_custom(cls, resources: dict[str, float]) -> dict[str, float]:
        if wrong := sorted({"CPU", "GPU", "memory", "object_store_memory"} & resources.keys()):
            raise ValueError(f"found {', '.join(wrong)}; allowed: Ray's custom resources")
        return resources

    def images_at_once(self, device: str) -> int:
        """The batch size on a device, "cpu" or "cuda"."""
        return AUTO_BATCH[device] if self.batch_size == "auto" else self.batch_size


_SECRET_WORDS = (
    *("key", "secret", "token", "password", "sas", "credential", "connection_string"),
    *("authorization", "cookie"),
)


def _assert_no_secrets(options: dict[str, Any], path: str = "") -> None:
    """Refuses options with a secret in them, also in options of an option; shows no value."""
    for name, value in options.items():
        if isinstance(value, dict):
            _assert_no_secrets(value, f"{path}.{name}")
        secret = any(word in str(name).lower() for word in _SECRET_WORDS) and isinstance(value, str)
        if secret and value != "anon" and not _FROM_VARIABLE.fullmatch(value):
            raise ValueError(f"{path}.{name}: a job spec holds no secrets; allowed: env:VARIABLE")


class StorageOptions(Section):
    """Access to the files below a URL. What is left out is found as AWS's own tools find it.

    It contains no secrets: it says where each machine of the cluster has its credentials.

    Attributes:
        endpoint: URL of a server with the S3 API, such as "http://minio:9000"; None: AWS_ENDPOINT_URL, the
            profile's, or Amazon's.
        region: AWS region; None: AWS_REGION, the profile's, or the bucket's own.
        profile: profile in ~/.aws/config and ~/.aws/credentials.
        credentials_env_prefix: prefix of the environment variables that hold the credentials: "PHOTOS" reads
            PHOTOS_ACCESS_KEY_ID, PHOTOS_SECRET_ACCESS_KEY and, for temporary ones, PHOTOS_SESSION_TOKEN.
        anonymous: read a public bucket without credentials.
        requester_pays: accept that the reader pays.
        options: further arguments of the fsspec file system (gcsfs, adlfs, ...); a value "env:NAME" is the
            value of the environment variable NAME.
        headers: of requests over HTTP, beside those of `fetch.headers`, which they replace.
    """

    endpoint: str | None = Field(None, pattern=_ENDPOINT)
    region: str | None = Field(None, min_length=1)
    profile: str | None = Field(None, min_length=1)
    credentials_env_prefix: str | None = Field(None, pattern=_VARIABLE)
    anonymous: bool = False
    requester_pays: bool = False
    options: dict[str, Any] = Field(default_factory=dict)
    headers: Headers = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_source_of_credentials(self) -> Self:
        given = [name for name in ("profile", "credentials_env_prefix", "anonymous") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(
                f"found {' and '.join(given)}; allowed: one of profile, credentials_env_prefix, anonymous"
            )
        return self

    @field_validator("options")
    @classmethod
    def _holds_no_secret(cls, options: dict[str, Any]) -> dict[str, Any]:
        _assert_no_secrets(options)
        return options

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


StorageMap = dict[str, StorageOptions]
"""Options by the beginnings of URLs; if several fit, the longest counts."""


class UnitsSpec(Section):
    """How the manifest is divided; fixed when a run begins.

    Attributes:
        rows: images in a unit, the piece of work that is committed as a whole; "auto": 128, fewer if the
            manifest is short, up to 512 if it is long.
        shard_rows: images in one published file, approximately; "auto": 100,000, with tags or
            embeddings 20,000, with embeddings of objects 4,000, as a shard's tables are in memory when it is
            published.
    """

    rows: Literal["auto"] | Annotated[int, Field(ge=1, le=65_536)] = "auto"
    shard_rows: Literal["auto"] | Annotated[int, Field(ge=1, le=10**12)] = "auto"


_S3_SCHEMES = ("s3", "s3a")
_WEB_SCHEMES = ("http", "https")
_S3_OPTIONS = ("endpoint", "region", "profile", "credentials_env_prefix", "requester_pays")


def _assert_urls(storage: StorageMap) -> StorageMap:
    """Refuses a key of `storage` that is not the beginning of a URL, and S3's options for another store."""
    for url, options in storage.items():
        scheme, separator, _ = url.partition("://")
        if not separator or not scheme or "@" in url or "?" in url:
            raise ValueError(
                f"found {url!r}; allowed: the beginning of URLs, such as s3://, s3://bucket or "
                "s3://bucket/folder, without user, password and query"
            )
        wrong = [name for name in _S3_OPTIONS if getattr(options, name)] if scheme not in _S3_SCHEMES else []
        if wrong:
            raise ValueError(f".{url}: {', '.join(wrong)} are for s3://; allowed: anonymous, options")
        if options.headers and scheme not in _WEB_SCHEMES:
            raise ValueError(f".{url}: found headers; allowed: those of http:// and https://")
    return storage


def reached_by(storage: StorageMap, headers: dict[str, str]) -> StorageMap:
    """How the files below each URL are reached: `storage`, with the headers of every request over HTTP."""
    if not headers:
        return storage
    web = {f"{scheme}://": StorageOptions() for scheme in _WEB_SCHEMES}
    web |= {url: options for url, options in storage.items() if url.partition("://")[0] in _WEB_SCHEMES}
    return storage | {url: _with_headers(options, headers) for url, options in web.items()}


def _with_headers(options: StorageOptions, headers: dict[str, str]) -> StorageOptions:
    """Options with more headers; their own replace those of the same name, whatever its case."""
    own = {name.lower() for name in options.headers}
    others = {name: value for name, value in headers.items() if name.lower() not in own}
    return options.model_copy(update={"headers": others | options.headers})


TAGGERS = f"{TAG.name}s"
"""The key of the section with any number of taggers, by name."""

SHORT_FORMS = {"manifest": "uri", **{task.name: "model" for task in TASKS}}
"""The key that a section's short form stands for: `detector: nanodet_g` sets `detector.model`; also for each
section in `TAGGERS`."""


def _expand(section: str) -> BeforeValidator:
    """Expands the short form of a section."""
    return BeforeValidator(
        lambda value: {SHORT_FORMS[section]: value} if isinstance(value, str | list) else value
    )


_TAGGER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def _without_none(taggers: object) -> object:
    """Leaves out taggers that are null: an override drops one so.

    Raises:
        ValueError: it is no section by name, such as one tagger's keys without a name above them.
    """
    if not isinstance(taggers, dict):
        raise ValueError(f"found {value_text(taggers)}; allowed: {_A_TAGGER}")
    if keys := [name for name in taggers if name in TaggerSpec.model_fields]:
        raise ValueError(
            f"found {', '.join(keys)} where names of taggers are, as keys of a tagger; allowed: {_A_TAGGER}"
        )
    return {name: tagger for name, tagger in taggers.items() if tagger is not None}


_A_TAGGER = "`taggers: {NAME: {model: …}}`, with a name of your own for each, and its keys below that"


def _assert_names(taggers: dict[str, TaggerSpec]) -> dict[str, TaggerSpec]:
    """Refuses names of taggers that the tables could not tell apart, or that no key path could have."""
    for name in taggers:
        if not _TAGGER.fullmatch(name) or name in SHORT_FORMS:
            raise ValueError(
                f"found the name {name!r}; allowed: a letter or digit, then letters, digits, - and _; but "
                f"none of {', '.join(SHORT_FORMS)}, which are other sections"
            )
    return taggers


def _in_order(facts: list[Fact]) -> list[Fact]:
    """Facts in the order of their columns, so that it does not matter how they were written."""
    if len(set(facts)) < len(facts):
        raise ValueError(f"found {', '.join(facts)}; allowed: each once")
    return [fact for fact in get_args(Fact) if fact in facts]


class JobSpec(Section):
    """One labelling job.

    Attributes:
        manifest: the images; `manifest: X` is short for `{uri: X}`.
        output: the run directory; a path or any fsspec URL.
        classifier: null leaves it out; `classifier: X` is short for `{model: X}`.
        detector: null leaves it out; `detector: X` is short for `{model: X}`.
        embedder: null leaves it out; `embedder: X` is short for `{model: X}`.
        taggers: further classifiers by name, each with its own section; `NAME: X` is short for
            `NAME: {model: X}`, and `NAME: null` leaves one out.
        facts: further columns of labels about each image: "exif", when, where and by which camera it was
            taken; "phash", a hash that near duplicates nearly share; `facts: X` is short for `[X]`.
        fetch: how image files are read.
        decode: how files become pixels.
        compute: where and how the models run.
        units: how the manifest is divided.
        storage: access to the files below a URL, by URL: "s3://" is for all of S3, "s3://photos" for a
            bucket, "s3://photos/new" for a folder; the longest that fits counts.
        max_failed: the failure budget: a count of images, or a fraction below 1 of them; None: no limit.
    """

    manifest: Annotated[ManifestSpec, _expand("manifest")]
    output: str = Field(min_length=1)
    classifier: Annotated[ClassifierSpec | None, _expand("classifier")] = ClassifierSpec()
    detector: Annotated[DetectorSpec | None, _expand("detector")] = DetectorSpec()
    embedder: Annotated[EmbedderSpec | None, _expand("embedder")] = None
    taggers: Annotated[
        dict[str, Annotated[TaggerSpec, _expand("tagger")]],
        BeforeValidator(_without_none),
        AfterValidator(_assert_names),
    ] = Field(default_factory=dict)
    facts: Annotated[
        list[Fact],
        ONE_OR_MORE,
        AfterValidator(_in_order),
    ] = Field(default_factory=list)
    fetch: FetchSpec = FetchSpec()
    decode: DecodeSpec = DecodeSpec()
    compute: ComputeSpec = ComputeSpec()
    units: UnitsSpec = UnitsSpec()
    storage: Annotated[StorageMap, AfterValidator(_assert_urls)] = Field(default_factory=dict)
    max_failed: Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _has_a_model(self) -> Self:
        if not self.models:
            sections = ", ".join(task.name for task in TASKS if task != TAG)
            raise ValueError(f"found no model; a job needs at least one of {sections} and {TAGGERS}")
        return self

    @model_validator(mode="after")
    def _has_a_detector_for_boxes(self) -> Self:
        for name, section in self.models.items():
            if self.detector is None and boxes_of(section):
                raise ValueError(
                    f"{name}.on: found 'boxes' in a job without a detector; allowed: a `detector:`, whose "
                    "boxes this model gets, or `on: image`"
                )
        return self

    @property
    def models(self) -> dict[str, ModelSpec]:
        """The models of the job by their keys in it, in the order in which an image passes them."""
        sections = {task.name: getattr(self, task.name) for task in TASKS if task != TAG}
        sections |= {f"{TAGGERS}.{name}": tagger for name, tagger in self.taggers.items()}
        return {name: section for name, section in sections.items() if section}

    @property
    def reached(self) -> StorageMap:
        """How the files below each URL are reached; see `reached_by`."""
        return reached_by(self.storage, self.fetch.headers)
