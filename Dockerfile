# The service with its pinned dependencies and nothing else. Data, keys and demo accounts lie in the volume /data.
FROM python:3.11-slim AS build
WORKDIR /src
COPY constraints.txt pyproject.toml README.md ./
COPY bridge bridge
COPY mappings mappings
RUN python -m venv --without-pip /app \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && pip --python /app/bin/python install --no-cache-dir --constraint constraints.txt /wheels/*.whl

FROM python:3.11-slim
RUN pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
    && useradd --system --uid 10001 --no-create-home --home-dir /data bridge \
    && install -d -o bridge -g bridge -m 0700 /data
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH \
    BRIDGE_DATA_DIR=/data \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health/live', timeout=2)"]
ENTRYPOINT ["fhir-bridge"]
CMD ["serve", "--host", "0.0.0.0"]
