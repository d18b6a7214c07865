# Two stages: a virtual environment from the lock, then a slim image with that environment and a workspace.
#
#   docker build -t agent-server .
#   docker run -e DATABASE_URL=postgresql://... agent-server db upgrade
#   docker run -e DATABASE_URL=postgresql://... agent-server key create --name me
#   docker run -e DATABASE_URL=postgresql://... -e 'AGENT_SERVER_ALLOWED_HOSTS=["localhost"]' \
#     -p 127.0.0.1:8000:8000 agent-server
#
# DATABASE_URL is required: a container does not keep the data of an embedded database.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /venv
COPY requirements.lock ./
RUN /venv/bin/pip install --no-deps --require-hashes -r requirements.lock && /venv/bin/pip check
COPY pyproject.toml README.md LICENSE .env.example ./
COPY migrations ./migrations
COPY agent_server ./agent_server
RUN /venv/bin/pip install --no-deps --no-build-isolation .

FROM python:${PYTHON}-slim
RUN useradd --system --uid 10001 --create-home agent
COPY --from=build /venv /venv
# The reference workspace. One of your own is mounted here, or copied elsewhere and named in AGENT_SERVER_WORKSPACE.
WORKDIR /workspace
COPY tools ./tools
COPY prompts ./prompts
COPY content ./content
COPY migrations/workspace ./migrations/workspace
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    AGENT_SERVER_ENVIRONMENT=production \
    AGENT_SERVER_HOST=0.0.0.0 \
    AGENT_SERVER_PORT=8000 \
    AGENT_SERVER_WORKSPACE=/workspace
USER agent
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['AGENT_SERVER_PORT']}/health\", timeout=3)"]
ENTRYPOINT ["agent-server"]
CMD ["serve"]
