# One image for web, worker, beat and migrations; docker-compose.yml says which command each of them runs.
FROM python:3.11-slim-bookworm AS build
WORKDIR /app
ENV PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements/base.txt requirements/base.txt
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements/base.txt
COPY manage.py ./
COPY config config
COPY agent_jobs agent_jobs
COPY channels_integration channels_integration
COPY infra infra
RUN /opt/venv/bin/python manage.py collectstatic --no-input --verbosity 0 \
    && /opt/venv/bin/python -m compileall -q agent_jobs channels_integration infra config

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="agent-jobs"
WORKDIR /app
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 DJANGO_SETTINGS_MODULE=config.settings
# The sandbox of commands (COMMAND_RUNNER=sandbox). It also needs rights that a container does not have by default:
# docs/commands.md, "In a container". Debian's security updates change its version, so none is pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
# A number, so that a cluster can see that it is not root. The application writes nothing into its own folders.
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=6s --start-period=20s --retries=3 \
    CMD ["python", "-m", "config.healthcheck", "live"]
CMD ["python", "-m", "config.serve", "--host", "0.0.0.0", "--port", "8000"]
