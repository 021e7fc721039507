"""Figures for Prometheus. No label names a user, a tenant or a text."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"lifelong_{name}", what, labels, registry=registry)

        def gauge(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(f"lifelong_{name}", what, labels, registry=registry)

        def seconds(name: str, what: str) -> Histogram:
            return Histogram(f"lifelong_{name}_seconds", what, registry=registry, buckets=_SECONDS)

        self.edits_active = gauge("edits_active", "Edits that are live.")
        self.index_lag = gauge("index_lag_edits", "Events that answers do not reflect yet.")
        self.epoch = gauge("epoch", "The number of the journal's last event.")
        self.alarms = gauge("alarms", "Alarms in the last reading.")
        self.retention = gauge(
            "retention_ratio", "Share of right answers in the last reading.", "metric", "age_bucket"
        )
        self.corrections = counter(
            "corrections", "Corrections, by what became of them.", "status", "source"
        )
        self.promotions = counter("promotions", "Promotions, by their outcome.", "outcome")
        self.feedback = counter("feedback", "Feedback on answers.", "rating")
        self.edit_hits = counter("edit_hits", "Answers that an edit shaped.")
        self.requests = counter("http_requests", "Requests.", "method", "route", "status")
        self.request_seconds = seconds("http_request", "From request to last byte.")
        self.apply_seconds = seconds("edit_apply", "From a correction to its acknowledgement.")
        self.lookup_seconds = seconds("lookup", "To decide which edits a prompt is about.")
        self.commit_seconds = seconds("journal_commit", "An empty commit, as readiness asks.")
        self.first_token_seconds = seconds("time_to_first_token", "To the first piece of a reply.")
        self.answer_seconds = seconds("e2e_request_latency", "To the last piece of a reply.")
        self.running = gauge("num_requests_running", "Replies that are being made.")
        self.waiting = gauge("num_requests_waiting", "Requests that wait for their first token.")
        self.prompt_tokens = counter("prompt_tokens", "Tokens that were read.")
        self.generation_tokens = counter("generation_tokens", "Tokens that were made.")
        self.finished = counter("request_success", "Replies, by why they ended.", "finished_reason")

    def text(self) -> bytes:
        """The page that Prometheus reads."""
        return generate_latest(self._registry)
