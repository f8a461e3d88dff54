"""A question before an action: a dialog over the page, or a page of its own without script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from django.http import HttpResponse

from agent_jobs.console.visits import Visit


@dataclass(frozen=True, slots=True)
class Question:
    """A question to confirm. `verb` labels the button, `facts` say what is concerned, `hidden` fields are sent
    along.
    """

    title: str
    text: str
    verb: str
    action: str
    back: str
    keep: str = "Leave it as it is"
    is_danger: bool = False
    facts: Sequence[tuple[str, str]] = ()
    reason_label: str = ""
    hidden: Mapping[str, str] = field(default_factory=dict)


def ask(visit: Visit, question: Question, *, here: str) -> HttpResponse:
    context = {"question": question}
    if visit.request.headers.get("HX-Request"):
        return visit.part("parts/question_dialog.html", context)
    dialog = "console/parts/question_dialog.html"
    return visit.render("dialog.html", {**context, "dialog": dialog}, here=here)
