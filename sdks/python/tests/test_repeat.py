import json
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skald_client import ApiException, Retries, Skald, models

SAGA = {
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "definition": "checkout",
    "version": 1,
    "mode": "orchestrated",
    "status": "completed",
    "state": "DONE",
    "input": {},
    "steps": [],
    "correlation_id": "c",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
    "ended_at": "2026-01-01T00:00:00Z",
    "revision": 1,
    "something_newer": True,
}
PROBLEM = {"type": "t", "title": "t", "status": 503, "detail": "later", "code": "overloaded"}


class Repeating(unittest.TestCase):
    """Against a server that gives these answers in turn: status and `Retry-After`, or None to hang up."""

    def serve(self, *answers: tuple[int, str] | None) -> str:
        self.asked: list[dict[str, str]] = []
        asked, left = self.asked, list(answers)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                asked.append(dict(self.headers))
                answer = left.pop(0)
                if answer is None:
                    self.close_connection = True
                    return
                status, wait_s = answer
                body = json.dumps(SAGA if status < 300 else PROBLEM).encode()
                self.send_response(status)
                kind = "application/json" if status < 300 else "application/problem+json"
                for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Retry-After", wait_s)):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def test_a_start_is_repeated_under_one_key_that_was_made_for_it(self) -> None:
        skald = Skald(self.serve((503, "0"), (429, "0"), None, (201, "")), api_key="k")
        self.assertEqual(skald.start("checkout", {}).status, models.SagaStatus.COMPLETED)
        keys = {headers["Idempotency-Key"] for headers in self.asked}
        self.assertEqual((len(self.asked), len(keys)), (4, 1))
        self.assertEqual(self.asked[0]["Authorization"], "Bearer k")

    def test_a_key_that_is_there_stays(self) -> None:
        Skald(self.serve((201, ""))).start("checkout", {}, idempotency_key="mine")
        self.assertEqual(self.asked[0]["Idempotency-Key"], "mine")

    def test_what_may_have_been_done_is_not_repeated_without_a_key(self) -> None:
        skald = Skald(self.serve((429, "0"), (503, "0")))
        with self.assertRaises(ApiException) as refused:
            skald.groups.poll_group("g", models.PollRequest(consumer="c"))
        self.assertEqual((refused.exception.status, refused.exception.data.code), (503, "overloaded"))
        self.assertEqual(len(self.asked), 2)
        self.assertNotIn("Idempotency-Key", self.asked[0])

    def test_repeating_ends(self) -> None:
        skald = Skald(self.serve((503, "0"), (503, "0")), retries=Retries(attempts_max=2))
        with self.assertRaises(ApiException) as refused:
            skald.start("checkout", {})
        self.assertEqual((refused.exception.status, len(self.asked)), (503, 2))

    def test_a_wait_that_is_asked_for_is_kept_and_one_that_is_too_long_is_not_begun(self) -> None:
        begun = time.monotonic()
        Skald(self.serve((503, "1"), (201, ""))).start("checkout", {})
        self.assertGreaterEqual(time.monotonic() - begun, 0.99)
        with self.assertRaises(ApiException):
            Skald(self.serve((503, "61"))).start("checkout", {})
        self.assertEqual(len(self.asked), 1)
