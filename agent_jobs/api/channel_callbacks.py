"""The channels call this: it hands their messages, deliveries and forms to services. `agent_jobs.apps` registers it."""

from rest_framework.exceptions import ParseError

from agent_jobs.api import parsing, throttling
from agent_jobs.approvals import edit_form
from agent_jobs.conversation import replies
from agent_jobs.errors import AgentJobsError, Invalid, NotFound
from agent_jobs.hours import deferral
from channels_integration.messages import Submission


class ChannelCallbacks:
    """The `MessageOwner` for jobs (`channels_integration.message_owner`): hands each call to a service."""

    receive = staticmethod(replies.receive)
    awaits = staticmethod(replies.awaits)
    settle_delivery = staticmethod(replies.settle_delivery)
    hold = staticmethod(deferral.hold)
    form = staticmethod(edit_form.opened)
    count_forgery = staticmethod(throttling.forged)

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
