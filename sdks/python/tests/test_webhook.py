import json
import unittest
from pathlib import Path

from skald_client import InvalidWebhook, verify_webhook

VECTORS = Path(__file__).parents[2] / "webhook-vectors.json"


class Webhooks(unittest.TestCase):
    def test_what_is_believed(self) -> None:
        for case in json.loads(VECTORS.read_text("utf-8"))["cases"]:
            for body in (case["body"], case["body"].encode()):
                with self.subTest(case["name"]):
                    if case["valid"]:
                        verify_webhook(case["secret"], case["headers"], body, now_s=case["now"])
                    else:
                        with self.assertRaises(InvalidWebhook):
                            verify_webhook(case["secret"], case["headers"], body, now_s=case["now"])

    def test_header_names_have_no_case(self) -> None:
        case = json.loads(VECTORS.read_text("utf-8"))["cases"][0]
        headers = {name.upper(): value for name, value in case["headers"].items()}
        verify_webhook(case["secret"], headers, case["body"], now_s=case["now"])
