"""Handles forms that people submit in a channel: parses JSON as strictly as `parsing`, returns errors as sentences."""

from rest_framework.exceptions import ParseError

from agent_jobs.api import parsing
from agent_jobs.approvals import edit_form
from agent_jobs.errors import AgentJobsError, Invalid, NotFound
from channels_integration.messages import Submission


def sent_back(submission: Submission) -> str:
    """Handle one form. Returns the error's text, or '' if it is accepted (settings.CHANNELS_SUBMISSION_HANDLER)."""
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
