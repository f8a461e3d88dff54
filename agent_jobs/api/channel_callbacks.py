"""The channels call this: it hands their messages, deliveries and forms to services. `agent_jobs.apps` registers it."""

from datetime import datetime

from django.http import HttpRequest
from rest_framework.exceptions import ParseError

from agent_jobs.api import parsing, throttling
from agent_jobs.approvals import edit_form
from agent_jobs.conversation import replies
from agent_jobs.errors import AgentJobsError, Invalid, NotFound
from agent_jobs.hours import deferral
from channels_integration.messages import Delivery, Form, Hold, Incoming, Outgoing, Submission


class ChannelCallbacks:
    """The `MessageOwner` for jobs (`channels_integration.message_owner`): hands each call to a service."""

    def receive(self, incoming: Incoming) -> bool:
        return replies.receive(incoming)

    def awaits(self, incoming: Incoming) -> bool:
        return replies.awaits(incoming)

    def settle_delivery(self, delivery: Delivery) -> None:
        replies.settle_delivery(delivery)

    def hold(self, outgoing: Outgoing, written_at: datetime) -> Hold | None:
        return deferral.hold(outgoing, written_at)

    def form(self, press: Incoming) -> Form:
        return edit_form.opened(press)

    def submit(self, submission: Submission) -> str:
        """Parses JSON as strictly as the API does, and returns errors as sentences."""
        try:
            edit_form.send_back(submission.press, parsing.read_json(submission.text.encode()))
        except ParseError as error:
            return str(error.detail).replace("the body", "this", 1)
        except Invalid as error:
            return "; ".join(f"{wrong.field} {wrong.message}".replace("body ", "", 1) for wrong in error.errors[:5])
        except NotFound:
            return "this question is not to be found any more"
        except AgentJobsError as error:
            return error.message
        return ""

    def count_forgery(self, request: HttpRequest) -> tuple[str, int]:
        return throttling.forged(request)
