"""E7: what comes in at Slack's door more than once, out of order, too early, too late, or from somebody else."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.chaos.ledgers import Said
from tests.chaos.load import Asked, Load
from tests.chaos.rig import TEAM, Rig
from tests.chaos.stage import Experiment, Scene
from tests.fakes.slack import Fault, Post

_STRANGE_TEAM = "T0ELSEWHERE"
_PLACE = ("channel", "channel_type", "ts", "event_ts")
_OUR_TWISTS = ("forged", "replayed", "of another team", "of another's workspace", "of our own bot", "edited")


class LoudLoad(Load):
    """People who are heard three times and in a wrong order, and others who only say that they are people."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        super().__init__(rig, **options)
        rig.add_org("rival", team=f"{TEAM}R")
        self._twists = random.Random(self.rng.random())
        self.surprises: list[str] = []
        self._thrice: set[str] = set()

    def _answer_of(self, asked: Asked, post: Post) -> Callable[[], None]:
        chance = self._twists
        attack = chance.choice(_OUR_TWISTS) if chance.random() < 0.4 else ""
        is_tripled, is_reordered, is_late = chance.random() < 0.3, chance.random() < 0.2, chance.random() < 0.1
        late_seconds = chance.uniform(3, 10)
        answer = super()._answer_of(asked, post)

        def say() -> None:
            if attack:
                self._attack(asked, post, attack)
            if is_reordered:
                # Said before the answer, and told after it.
                self._say_beside(asked, post, "before", wait=chance.uniform(0, 1))
            if is_tripled:
                self._count("tripled", 1)
                self._thrice.add(asked.name)
            if is_late:
                self._count("late", 1)
                self.agenda.after(late_seconds, answer)
            else:
                answer()

        return say

    def _tell(self, asked: Asked, envelope: Any, *, retry: int) -> None:
        if retry == 0 and asked.name in self._thrice:
            # All at once, at both webs; the one that counts is the base's.
            others = [threading.Thread(target=self._send, args=(envelope, number)) for number in (1, 2)]
            for other in others:
                other.start()
            super()._tell(asked, envelope, retry=retry)
            for other in others:
                other.join()
            return
        super()._tell(asked, envelope, retry=retry)

    def _say_beside(self, asked: Asked, post: Post, word: str, *, wait: float) -> None:
        slack = self.rig.slack
        message = slack.person_writes(post.channel, f"{word} {asked.name}", thread_ts=post.ts, user="U0ANN")
        asked.overheard.append(Said(message["text"], time.time(), None))
        event = {**message, "channel": post.channel, "event_ts": message["ts"], "channel_type": "channel"}
        envelope = slack.envelope(event)
        self._count("reordered", 1)
        self.agenda.after(wait, lambda: self._send(envelope, 0))

    def _attack(self, asked: Asked, post: Post, twist: str) -> None:
        """Nothing of it may be believed; what is not even Slack's is refused."""
        slack = self.rig.slack
        text = f"{twist}: {asked.name}"
        message = slack.person_writes(post.channel, text, thread_ts=post.ts, user="U0MALLORY")
        event = {**message, "channel": post.channel, "event_ts": message["ts"], "channel_type": "channel"}
        twists: dict[str, Any] = {}
        envelope = slack.envelope(event)
        match twist:
            case "forged":
                twists = {"secret": "not the secret"}
            case "replayed":
                twists = {"skew": -400}
            case "of another team":
                envelope["team_id"] = envelope["event"]["team"] = _STRANGE_TEAM
            case "of another's workspace":
                envelope["team_id"] = envelope["event"]["team"] = f"{TEAM}R"
            case "of our own bot":
                envelope["event"] |= {"bot_id": "B0BOT", "app_id": "A0FAKE", "user": "U0BOT"}
            case "edited":
                # As Slack tells of it: the message in its new form, which nobody has heard in its old one.
                now = message | {"edited": {"user": message["user"], "ts": message["ts"]}}
                before = message | {"text": "something else"}
                changed = {"subtype": "message_changed", "message": now, "previous_message": before}
                envelope["event"] = {"type": "message", **{k: event[k] for k in _PLACE}} | changed
        asked.overheard.append(Said(text, time.time(), None, is_believable=False))
        status = self._send(envelope, 0, **twists)
        self._count(twist, 1)
        is_refused = status is not None and 400 <= status < 500
        if twists and status is not None and not is_refused:
            self.surprises.append(f"an event that was {twist} was answered {status}")

    def _send(self, envelope: Any, retry: int, **twists: Any) -> int | None:
        url = f"http://127.0.0.1:{self.client.next_port()}/channels/slack/events"
        try:
            return self.rig.slack.send_event(envelope, retry=retry, url=url, **twists)
        except OSError:
            return None

    def _count(self, what: str, times: int) -> None:
        with self._lock:
            self.answers[f"told {what}"] += times


def _harm(scene: Scene) -> None:
    """Posts of which the answer is lost: people's answers come before our mark, up to the grace before."""
    slack = scene.rig.slack
    slack.rates = {Fault.DROP_AFTER: 0.1, Fault.ERROR_500_AFTER: 0.05}
    while scene.pause(0.5):
        scene.faults |= Counter({f"Slack {fault}": times for fault, times in slack.faults.items()})


def _verify(scene: Scene) -> None:
    assert isinstance(scene.load, LoudLoad)
    for surprise in scene.load.surprises[:5]:
        scene.breaks(surprise)
    if not scene.faults:
        scene.breaks("no answer of Slack's was lost: the run was too short to show anything")
    for twist in _OUR_TWISTS:
        if not scene.load.answers[f"told {twist}"]:
            scene.breaks(f"no event was {twist}: the run was too short to show anything")


E7 = Experiment(
    "E7",
    "events tripled, reordered, before our mark, late, forged, replayed, of another team, of our own bot",
    "I8",
    _harm,
    make_load=LoudLoad,
    verify=_verify,
    # What matches nobody is looked at a second time after a minute, and lost answers leave a backlog of looks.
    quiet_seconds=240,
)
