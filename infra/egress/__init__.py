"""Guarded requests to other people's servers, by one HTTP stack (httpx2 and httpcore2).

`addresses` decides where a request may go. `async_client` is the client that the SDKs of providers and of MCP get: it
shares one event loop and keeps connections. `exchanges` sends one blocking request over the same network and
certificates, for messages, webhooks and HTTP tools: these must know whether a byte was written. `requests_client` does
so under the rules of the settings.
"""
