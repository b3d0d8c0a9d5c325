"""The language-model back end against a local server that answers, fails, stalls and babbles."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from texts import llm
from texts.glosses import Lexicon
from texts.llm import Chat, LLMError, Nonsense, NotConfigured, Unreachable, tidy
from texts.transforms import Refused, Rules

PANDA = "A panda eats shoots and leaves."
GOOD = {
    "regular": PANDA,
    "code-switching": "熊猫吃 shoots 和 leaves。",
    "pronunciation-perturbed": "A pan duh ayts shots end leafs.",
}
KEY = "sk-secret-0123456789"
Answer = str | int | bytes | Callable[[BaseHTTPRequestHandler], None]


class Endpoint:
    """A chat endpoint on this machine that gives prepared answers in turn, the last for ever."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[dict, dict]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append((dict(self.headers), body))
                answers = outer.answers
                outer.reply(self, answers.pop(0) if len(answers) > 1 else answers[0])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if callable(answer):
            answer(handler)
            return
        body = answer if isinstance(answer, bytes) else b"{}"
        if isinstance(answer, str):
            choice = {"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}
            body = json.dumps({"choices": [choice]}).encode()
        handler.send_response(answer if isinstance(answer, int) else 200)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("INTP_LLM_KEY", KEY)
    monkeypatch.setenv("no_proxy", "*")
    served = Endpoint()
    yield served
    served.server.shutdown()
    served.server.server_close()


@pytest.fixture
def chat(endpoint: Endpoint, tmp_path: Path) -> Callable[..., Chat]:
    rules = Rules(0, Lexicon({}, {}, ()))

    def make(**options: object) -> Chat:
        settings = {"timeout": 5.0, "backoff": 0.01, "tries": 3} | options
        return Chat(endpoint.url, "tiny", tmp_path / "cache", rules, **settings)

    return make


@pytest.mark.parametrize("kind", GOOD)
def test_an_answer_is_asked_for_once_and_then_cached(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path, kind: str,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    endpoint.answers = [f'"{GOOD[kind]}"\n']
    made = chat().transform(PANDA, "en", kind)
    assert (made.text, made.kind) == (GOOD[kind], kind)
    assert made.lang == ("mixed" if kind == "code-switching" else "en")
    headers, body = endpoint.requests[0]
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert body["messages"][1]["content"] == PANDA and body["model"] == "tiny"
    monkeypatch.delenv("INTP_LLM_KEY")
    assert chat().transform(PANDA, "en", kind) == made
    assert len(endpoint.requests) == 1
    files = list((tmp_path / "cache").iterdir())
    assert [f.suffix for f in files] == [".json"]
    assert KEY not in files[0].read_text("utf-8") and KEY not in repr(chat())


def test_another_text_model_or_temperature_is_another_request(
    endpoint: Endpoint, chat: Callable[..., Chat]
):
    endpoint.answers = [PANDA]
    chat().transform(PANDA, "en", "regular")
    chat().transform(PANDA[:-1], "en", "regular")
    chat(temperature=0.0).transform(PANDA, "en", "regular")
    assert len(endpoint.requests) == 3


def test_a_damaged_or_by_now_refused_cache_file_is_made_again(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path
):
    endpoint.answers = [GOOD["pronunciation-perturbed"]]
    made = chat().transform(PANDA, "en", "pronunciation-perturbed")
    (path,) = (tmp_path / "cache").iterdir()
    whole = path.read_text("utf-8")
    for spoilt in (whole[:40], "{}", whole.replace(made.text, PANDA)):
        path.write_text(spoilt, "utf-8")
        assert chat().transform(PANDA, "en", "pronunciation-perturbed") == made
        assert path.read_text("utf-8") == whole
    assert len(endpoint.requests) == 4


def test_failures_pass(endpoint: Endpoint, chat: Callable[..., Chat]):
    endpoint.answers = [500, 429, PANDA]
    assert chat().transform(PANDA, "en", "regular").text == PANDA
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("broken", [500, b"<html>", b'{"choices": []}', b"[1]", b"null"])
def test_failures_that_stay_are_named(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path, broken: Answer
):
    endpoint.answers = [broken]
    with pytest.raises(Unreachable, match="try 3: (HTTP 500|ValueError: not a chat completion)"):
        chat().transform(PANDA, "en", "regular")
    assert len(endpoint.requests) == 3 and not (tmp_path / "cache").exists()


def test_a_wrong_key_is_not_tried_again_and_not_shown(
    endpoint: Endpoint, chat: Callable[..., Chat]
):
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(401, f"bad key {KEY}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    endpoint.answers = [refuse]
    with pytest.raises(Unreachable, match=r"try 1: HTTP 401 bad key \*\*\*"):
        chat().transform(PANDA, "en", "regular")
    assert len(endpoint.requests) == 1


def test_the_key_does_not_follow_a_redirect(endpoint: Endpoint, chat: Callable[..., Chat]):
    def elsewhere(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", endpoint.url + "/elsewhere")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    endpoint.answers = [elsewhere]
    with pytest.raises(Unreachable, match="HTTP 302"):
        chat().transform(PANDA, "en", "regular")
    assert len(endpoint.requests) == 1


def silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(0.6)


def trickling(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass


def hanging_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True
    handler.connection.close()


@pytest.mark.parametrize("stall", [silent, trickling])
def test_a_server_that_stalls_is_left_in_time(
    endpoint: Endpoint, chat: Callable[..., Chat], stall: Answer
):
    endpoint.answers = [stall]
    begun = time.monotonic()
    with pytest.raises(Unreachable, match="timed out|no whole answer"):
        chat(timeout=0.2, tries=2).transform(PANDA, "en", "regular")
    assert time.monotonic() - begun < 2
    endpoint.answers = [stall, PANDA]
    assert chat(timeout=0.2).transform(PANDA, "en", "regular").text == PANDA


def test_a_server_that_hangs_up_or_is_not_there(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path
):
    endpoint.answers = [hanging_up, PANDA]
    assert chat().transform(PANDA, "en", "regular").text == PANDA
    nobody = Chat("http://127.0.0.1:9", "tiny", tmp_path, chat().rules, tries=2, backoff=0.01)
    with pytest.raises(Unreachable, match="127.0.0.1:9"):
        nobody.transform(PANDA, "en", "regular")


def test_nonsense_is_sent_back_with_the_reason(endpoint: Endpoint, chat: Callable[..., Chat]):
    good = GOOD["pronunciation-perturbed"]
    endpoint.answers = [PANDA, "", good]
    made = chat().transform(PANDA, "en", "pronunciation-perturbed")
    assert made.text == good and made.note == "tiny, answer 3"
    said = endpoint.requests[1][1]["messages"]
    assert [m["role"] for m in said] == ["system", "user", "assistant", "user"]
    assert "only 0% of what the model reads changed" in said[3]["content"]
    assert chat().transform(PANDA, "en", "pronunciation-perturbed") == made
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("pronunciation-perturbed", PANDA),
        ("pronunciation-perturbed", "I'm sorry, but I can't help with attacking a speech system."),
        ("code-switching", "Sure! Here you go: the panda eats."),
        ("regular", "Of course. Would you like me to translate it for you as well?"),
    ],
)
def test_nonsense_for_ever_is_an_error_of_its_own(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path, kind: str, answer: str
):
    endpoint.answers = [answer]
    with pytest.raises(Nonsense, match="3 answers, none usable"):
        chat().transform(PANDA, "en", kind)
    assert len(endpoint.requests) == 3 and not (tmp_path / "cache").exists()


def test_without_key_or_endpoint_the_error_says_what_to_set(
    endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(NotConfigured, match="no http"):
        Chat("", "tiny", tmp_path, chat().rules).transform(PANDA, "en", "regular")
    monkeypatch.setenv("INTP_LLM_KEY", f"{KEY}\nX")
    with pytest.raises(NotConfigured, match="no usable key") as caught:
        chat().transform(PANDA, "en", "regular")
    assert KEY not in str(caught.value)
    monkeypatch.delenv("INTP_LLM_KEY")
    with pytest.raises(NotConfigured, match="set the environment variable INTP_LLM_KEY"):
        chat().transform(PANDA, "en", "regular")
    assert issubclass(NotConfigured, LLMError) and not endpoint.requests


def test_repetition_punctuation_and_unknown_types_are_left_to_the_rules(
    endpoint: Endpoint, chat: Callable[..., Chat]
):
    for kind in ("repeated", "punctuation-perturbed"):
        assert chat().transform(PANDA, "en", kind) == chat().rules.transform(PANDA, "en", kind)
    with pytest.raises(ValueError, match="sung"):
        chat().transform(PANDA, "en", "sung")
    with pytest.raises(Refused):
        chat().transform("", "en", "repeated")
    assert not endpoint.requests


def test_threads_share_a_back_end(endpoint: Endpoint, chat: Callable[..., Chat], tmp_path: Path):
    from concurrent.futures import ThreadPoolExecutor

    endpoint.answers = [lambda handler: Endpoint.reply(handler, PANDA)]
    shared = chat()
    texts = [PANDA, PANDA[:-1], PANDA.lower(), PANDA.upper()] * 4
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda text: shared.transform(text, "en", "regular").text, texts))
    assert set(made) == {PANDA}
    assert sorted(p.suffix for p in (tmp_path / "cache").iterdir()) == [".json"] * 4


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("<think>hm\nso</think>\n“你好。”", "你好。"),
        ("```text\nA b.\n```", "A b."),
        ('"Yes," he said, "no."', '"Yes," he said, "no."'),
        ("A\n  b.", "A b."),
        ("“", "“"),
    ],
)
def test_tidy(answer: str, text: str):
    assert tidy(answer) == text


def test_the_instructions_are_our_own():
    for words in llm.ASKED.values():
        assert "panda" not in words.lower() and "高兴" not in words
