"""Every error this package raises on purpose.

Each one says what happened and what to do about it: `str(error)` is the two sentences together,
`error.what` and `error.remedy` are the parts. `store` has its own tree (`StoreError`), because it
never imports `lifelong`.
"""


class LifelongError(Exception):
    """Something was refused or failed; `.what` says what, `.remedy` says how to go on."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what} {self.remedy}"


class ModelError(LifelongError):
    """A model or an encoder cannot be used."""


class ModelMissing(ModelError):
    """A package is not installed, a folder does not exist, the hub has no such id."""


class ModelDamaged(ModelError):
    """The files of a model are there but are not what they should be."""


class CacheUnwritable(ModelError):
    """What is kept of a model (its converted copy, a sweep of its layers) cannot be written."""


class UnsupportedModel(ModelError):
    """The layout table has no entry for this model type."""


class NoChatTemplate(ModelError):
    """The tokenizer has no chat template, or one whose turns cannot be told apart."""


class MessagesRefused(LifelongError):
    """The chat template does not accept these messages."""


class Stalled(ModelError):
    """A reply that is streamed has stopped coming."""


class StaleCache(LifelongError):
    """A key-value cache was filled under other weights or edits than it is to be used with."""


class NotAModel(ModelError):
    """What was to be wrapped is no transformers model, or is wrapped already."""


class EditRefused(LifelongError):
    """A correction that cannot become an edit; nothing was written."""


class BadEdit(EditRefused):
    """A field is missing, empty, of the wrong type, or holds characters an edit may not hold."""


class TextTooLong(EditRefused):
    """A field is longer than an edit allows."""


class AlreadyTaught(EditRefused):
    """A live edit already says this target to this prompt."""


class SubjectMissing(EditRefused):
    """A method that writes at the subject does not find it in the prompt."""


class TooWide(EditRefused):
    """An edit of the weights is everybody's: it cannot be for one user or tenant."""


class WeightsUnfit(EditRefused):
    """These weights cannot be edited: quantised, shared, or not in memory."""


class UpdateRejected(EditRefused):
    """A change of weights is not finite, or so large that it would break the model."""


class NotLearnt(EditRefused):
    """The search for what makes the model say a target has not found it."""


class MomentsMissing(EditRefused):
    """There is too little text to learn from what the weights already answer to."""


class EvaluationError(LifelongError):
    """A measurement cannot be made, or not as asked."""


class BadRun(EvaluationError):
    """An option of a run that does not exist or does not fit the file or the model."""


class OutUnusable(EvaluationError):
    """The folder for the results cannot be written to."""


class OtherRun(EvaluationError):
    """The folder holds the results of another configuration."""


class Conflicting(EditRefused):
    """An edit contradicts a live one, and was to be refused in that case."""


class BadSetting(LifelongError):
    """A setting of the monitor, or an option of a method, has no meaning."""


class PackageMissing(LifelongError):
    """What was asked for needs a package that is not installed."""


class NothingToExport(LifelongError):
    """No edit is in the weights."""


class NoReport(LifelongError):
    """Nothing was measured yet, or the page cannot be written."""


class BadDataset(LifelongError):
    """A file that nothing can be measured with; where it stands in the file is said."""


class UnknownFormat(BadDataset):
    """The fields of the first record are those of no known dataset."""


class MixedFormats(BadDataset):
    """A record is of another dataset than those before it."""


class BadRecord(BadDataset):
    """A line is not JSON, or a field of its record is missing or of the wrong type."""


class EmptyDataset(BadDataset):
    """There is no record, or none that asks for a change."""


class BadFact(LifelongError):
    """A row of a fact base that says nothing plain; it was left out."""


class Busy(LifelongError):
    """More is asked at once than can be answered; later it may be."""


class EmptyPrompt(LifelongError):
    """There is nothing to read, so nothing to go on from."""


class PromptTooLong(LifelongError):
    """A prompt and the longest reply to it are more than the model reads at once."""
