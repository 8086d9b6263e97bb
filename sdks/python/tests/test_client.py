import unittest

from skald_client import Skald
from skald_client.generated import api


class Client(unittest.TestCase):
    def test_it_has_every_topic(self) -> None:
        topics = {name for name in vars(api) if name.endswith("Api")}
        self.assertEqual({type(topic).__name__ for topic in vars(Skald("http://skald")).values()}, topics)
