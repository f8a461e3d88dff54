"""The test double that ships with the service: it follows a fixed script and costs nothing."""

from agent_jobs.llm.base import Access, Line, OnStart, Reply, Turn


class ScriptedModel:
    """Posts the goal, follows up on silence, thanks for the reply and ends with a result made of it."""

    def answer(self, turn: Turn, access: Access, on_start: OnStart | None = None) -> Reply:
        replies = _latest_replies(turn.lines)
        if replies:
            author = replies[-1].author
            said = " ".join(line.text for line in replies)
            return Reply(
                text=f"Thank you, {author}. I have noted your answer.",
                is_done=True,
                result=f"{author} answered: {said}",
                result_data={"author": author, "answer": said},
            )
        if not turn.lines:
            return Reply(text=turn.goal)
        if turn.is_follow_up:
            return Reply(text=f"Still hoping for your answer ({turn.follow_up} of {turn.max_follow_ups}): {turn.goal}")
        return Reply()


def _latest_replies(lines: tuple[Line, ...]) -> list[Line]:
    """The lines of people since the agent last spoke."""
    latest: list[Line] = []
    for line in reversed(lines):
        if not line.is_human:
            break
        latest.append(line)
    return latest[::-1]
