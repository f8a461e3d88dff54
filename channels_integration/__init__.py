"""Places where people are: Slack, web chats, webhooks. Sends what it is given once, hands on what it hears once.

Knows nothing of jobs: an organisation is a string, an owner is an opaque key, and the two settings
CHANNELS_INBOUND_HANDLER and CHANNELS_DELIVERY_HANDLER name the functions that are told, CHANNELS_HOURS_HANDLER the one
that is asked whether a message may be sent now.

    messages   the shapes that cross this package's border, and the ways a send can fail
    directory  which places an organisation can reach: installations, registered channels
    outbox     messages on their way out: written with the state that causes them, sent by a loop
    lanes      whose turn it is: fair between organisations, in order per thread, paced per channel
    settling   what is written when an attempt is over
    inbound    messages on their way in: verified, stored once, routed once
    transcript the lines of channels that live in our own database
    webchat    reading and speaking there, as a person
    gate       how many threads of a worker do one kind of work
    platforms  one file per platform; Slack's blocks, and what it tells us, in two beside it
    http       the only client to other people's servers
    sealing    secrets at rest
    doorbell   "there is work in this queue"
"""
