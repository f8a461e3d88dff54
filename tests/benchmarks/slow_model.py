"""An OpenAI-compatible server that answers after so many seconds; prints its address and serves until it is killed."""

import sys
import threading

from tests.fakes.openai import Answer, FakeOpenAI, says


def main() -> None:
    seconds, pause = float(sys.argv[1]), threading.Event()

    def answer(request: object) -> Answer:
        pause.wait(seconds)
        return says("How are you?")

    with FakeOpenAI(answer) as fake:
        print(fake.base_url, flush=True)
        pause.wait()


if __name__ == "__main__":
    main()
