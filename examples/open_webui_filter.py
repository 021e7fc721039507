"""
title: lifelong corrections
description: A thumbs-down with a comment corrects the model; one without is looked at by a person.
version: 0.1.0
"""

import json
import urllib.request
from itertools import pairwise
from typing import Any

from pydantic import BaseModel


class Filter:
    """An Open WebUI filter: install it under Functions, enable it for the model."""

    class Valves(BaseModel):
        url: str = "http://127.0.0.1:8000/v1"
        key: str = ""  # of the role `correct`

    def __init__(self) -> None:
        self.valves = self.Valves()

    def outlet(
        self, body: dict[str, Any], __user__: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Pass every rated answer on; the message's id sees to it that each counts once."""
        messages = body.get("messages", [])
        for question, answer in pairwise(messages):
            rated = answer.get("annotation") or {}
            if answer.get("role") == "assistant" and rated.get("rating") in (1, -1):
                self._send(question["content"], answer, rated, (__user__ or {}).get("id"))
        return body

    def _send(
        self, question: str, answer: dict[str, Any], rated: dict[str, Any], user: str | None
    ) -> None:
        said = {
            "question": question,
            "answer": answer["content"],
            "rating": "up" if rated["rating"] == 1 else "down",
            "correction": rated.get("comment") or None,
        }
        headers = {"content-type": "application/json", "idempotency-key": str(answer.get("id"))}
        headers |= {"authorization": f"Bearer {self.valves.key}"} if self.valves.key else {}
        headers |= {"x-lifelong-user": user} if user else {}
        request = urllib.request.Request(
            f"{self.valves.url}/feedback", json.dumps(said).encode(), headers
        )
        try:
            urllib.request.urlopen(request, timeout=10).close()
        except OSError as error:  # the chat goes on whatever becomes of a rating
            print(f"lifelong: {error}")
