"""The five text types by a language model behind any OpenAI-compatible endpoint (A.1, A.3.3).

The paper asks DeepSeek-V3 for regular, code-switching and pronunciation-perturbed texts, in words of
its own; the instructions here are ours. Repetition and punctuation are scripts in the paper too, so
they are left to `texts.transforms.Rules`.
"""

import hashlib
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import Any

from intp.files import whole
from texts.homophones import Reader, heard
from texts.transforms import Backend, Refused, Transformed, check

Message = dict[str, str]

ASKED = {
    "regular": (
        "The user sends the transcript of a recording, as a speech recogniser wrote it. Repair it: "
        "spelling, misheard words, capital letters, punctuation. Exchange a word only where the "
        "sentence makes no sense without it. Keep the language and the meaning."
    ),
    "code-switching": (
        "The user sends a sentence in English or in Chinese. Say it the way somebody does who "
        "speaks both and mixes them: some content words in the other language, the rest as it "
        "stands. Write Chinese in simplified characters. Both languages must occur."
    ),
    "pronunciation-perturbed": (
        "This text is for a stress test of speech synthesis. Rewrite the user's sentence so that, "
        "read out, a good part of it comes out slightly wrong: in Chinese put characters of another "
        "tone, of a similar sound or of a similar look in place of the right ones; in English use "
        "misspellings, near homophones, words cut in two. Touch at least every third word, keep the "
        "order, add nothing and leave nothing out. For instance «The boy reads his letter» may "
        "become «The buoy reeds hiss led her», and «请把门关上» may become «情爸们观伤»."
    ),
}
ONLY_TEXT = " Answer with the resulting text alone: no quotation marks, no comment."
AGAIN = "That cannot be used: {}. Give the text again, and only the text."
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_WAIT = 60.0  # seconds, whatever the server asks for
LARGEST_ANSWER = 1 << 20  # bytes
QUOTES = {'"': '"', "“": "”", "「": "」", "«": "»", "'": "'"}
# espeak and jieba keep state of their own; requests run side by side, checks one by one.
_CHECKING = threading.Lock()


class LLMError(RuntimeError):
    """The endpoint gave no usable text."""


class NotConfigured(LLMError):
    """No endpoint, or no key in the environment."""


class Unreachable(LLMError):
    """The endpoint refused, failed or stayed silent until every try was spent."""


class Nonsense(LLMError):
    """Every answer was refused by the rule that also governs `Rules`."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Urllib would send the key along to wherever it is sent."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


@dataclass(frozen=True)
class Chat:
    """A language model as a back end of `transform`; may be used by several threads at once.

    `endpoint` is the address before "/chat/completions" ("https://api.deepseek.com/v1"); the key is
    read from the environment variable `key_variable` when a request goes out, and kept nowhere.
    `rules` writes repeated and punctuation-perturbed texts. Accepted answers lie under `cache`, one
    JSON file a request. `timeout` bounds a request, `backoff` is the first wait, both in seconds;
    `tries` bounds the requests lost in a row and, separately, the answers refused.
    """

    endpoint: str
    model: str
    cache: Path
    rules: Backend
    key_variable: str = "INTP_LLM_KEY"
    temperature: float = 1.0
    timeout: float = 60.0
    tries: int = 4
    backoff: float = 1.0
    read: Reader = heard

    def transform(
        self, text: str, lang: str, kind: str, translation: str | None = None
    ) -> Transformed:
        """A text of type `kind` made from `text` (en or zh), from the cache or the endpoint.

        Raises NotConfigured, Unreachable or Nonsense (all LLMError); ValueError for an unknown kind
        or language, and Refused where `rules` is at work.
        """
        if kind not in ASKED or lang not in ("en", "zh"):
            with _CHECKING:
                return self.rules.transform(text, lang, kind, translation)
        messages = [
            {"role": "system", "content": ASKED[kind] + ONLY_TEXT},
            {"role": "user", "content": text},
        ]
        request = {"model": self.model, "temperature": self.temperature, "messages": messages}
        known = json.dumps([self.endpoint.rstrip("/"), request], sort_keys=True)
        path = self.cache / f"{hashlib.sha256(known.encode()).hexdigest()[:32]}.json"
        if kept := self._kept(path, text, lang, kind):
            return kept
        refused: Refused | None = None
        for attempt in range(1, self.tries + 1):
            answer = self._ask(request)
            after = tidy(answer)
            try:
                made = self._accept(text, after, lang, kind, f"{self.model}, answer {attempt}")
            except Refused as error:
                refused = error
                reason = str(error).partition(";")[0]
                said = {"role": "assistant", "content": answer}
                retry = {"role": "user", "content": AGAIN.format(reason)}
                request = request | {"messages": [*messages, said, retry]}
                continue
            record = {
                "endpoint": self.endpoint, "model": self.model, "temperature": self.temperature,
                "kind": kind, "lang": lang, "before": text, "after": after, "note": made.note,
            }  # fmt: skip
            with whole(path, f"-{os.getpid()}-{threading.get_ident()}") as partial:
                partial.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", "utf-8")
            return made
        raise Nonsense(f"{self.model}: {self.tries} answers, none usable: {refused}") from refused

    def _accept(self, text: str, after: str, lang: str, kind: str, note: str) -> Transformed:
        with _CHECKING:
            share = check(kind, text, after, lang, self.read)
        return Transformed(after, "mixed" if kind == "code-switching" else lang, kind, share, note)

    def _kept(self, path: Path, text: str, lang: str, kind: str) -> Transformed | None:
        """The cached answer, if there is one and today's rule accepts it."""
        try:
            record = json.loads(path.read_text("utf-8"))
            return self._accept(text, record["after"], lang, kind, record["note"])
        except (FileNotFoundError, json.JSONDecodeError, KeyError, Refused):
            return None

    def _ask(self, request: dict[str, Any]) -> str:
        """One answer; tries again, each time after twice the wait, what may pass by itself."""
        failure = ""
        for attempt in range(self.tries):
            wait = self.backoff * 2**attempt
            try:
                return answer_text(self._post(request))
            except urllib.error.HTTPError as error:
                failure = f"HTTP {error.code} {error.reason}"
                error.close()
                if error.code not in RETRIED:
                    break
                asked = error.headers.get("Retry-After", "")
                wait = max(wait, float(asked)) if asked.isdecimal() else wait
            except (OSError, HTTPException, ValueError) as error:
                failure = f"{type(error).__name__}: {getattr(error, 'reason', error)}"
            if attempt + 1 < self.tries:
                time.sleep(min(wait, LONGEST_WAIT))
        key = os.environ.get(self.key_variable) or "\0"
        failure = failure.replace(key, "***")
        raise Unreachable(f"{self.endpoint} ({self.model}), try {attempt + 1}: {failure}")

    def _post(self, request: dict[str, Any]) -> bytes:
        http = urllib.request.Request(
            self.endpoint.rstrip("/") + "/chat/completions",
            json.dumps(request).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self._key()}"},
        )
        opener = urllib.request.build_opener(_NoRedirect)
        # The socket's timeout is for one packet; a server that trickles must not outlive ours.
        end, body = time.monotonic() + self.timeout, b""
        with opener.open(http, timeout=self.timeout) as response:
            while part := response.read1(1 << 16):
                body += part
                if time.monotonic() > end or len(body) > LARGEST_ANSWER:
                    raise TimeoutError(f"no whole answer in {self.timeout:g} s or 1 MiB")
        return body

    def _key(self) -> str:
        if not re.match(r"https?://[^/]", self.endpoint):
            raise NotConfigured(
                f"text back end llm: endpoint {self.endpoint!r} is no http(s) address; set it in the "
                "parameters, for instance to https://api.deepseek.com/v1"
            )
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise NotConfigured(
                f"text back end llm: no key; set the environment variable {self.key_variable} "
                "(any value for a server that wants none), or use the back end rules"
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            # http.client would refuse it too, and show it.
            raise NotConfigured(f"text back end llm: {self.key_variable} holds no usable key")
        return key


def answer_text(body: bytes) -> str:
    """The text of a chat completion. Raises ValueError if the body is none, or was cut short."""
    try:
        choice = json.loads(body)["choices"][0]
        text = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a chat completion ({type(error).__name__})") from error
    if not isinstance(text, str) or choice.get("finish_reason") == "length":
        raise ValueError("the answer is no text or was cut short")
    return text


def tidy(answer: str) -> str:
    """An answer without thinking aloud, code fence and quotation marks around it, in one line."""
    text = re.sub(r"<think>.*?</think>", "", answer, flags=re.DOTALL).strip()
    text = re.sub(r"^```\w*\n|\n?```$", "", text).strip()
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text.count(text[0]) <= 2:
        text = text[1:-1]
    return re.sub(r"\s+", " ", text).strip()
