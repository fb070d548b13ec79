# TagSpeech for CPUs. In the root of the repository:
#
#   docker build --file utils/docker/cpu.Dockerfile --tag tagspeech .
#   docker run --rm --volume "$PWD:/data" tagspeech transcribe --model /data/MODEL /data/meeting.wav
#
# The compiler, and what pip leaves behind, stay in the first stage.
FROM python:3.12-slim-bookworm AS build

# meeteval and spy-der are distributed as source.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tagspeech
ENV PATH=/opt/tagspeech/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source

# The largest layers first: they change least.
COPY requirements.txt requirements-serve.txt ./
RUN grep '^torch==' requirements.txt >torch.txt \
 && pip install --no-deps --index-url https://download.pytorch.org/whl/cpu --requirement torch.txt
RUN pip install --requirement requirements.txt --requirement requirements-serve.txt
COPY pyproject.toml LICENSE LICENSES.md ./
COPY tagspeech tagspeech
RUN pip install --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
RUN useradd --create-home --uid 1000 tagspeech \
 && install --directory --owner tagspeech /data
COPY --from=build /opt/tagspeech /opt/tagspeech
ENV PATH=/opt/tagspeech/bin:$PATH HF_HOME=/data/.huggingface TAGSPEECH_CACHE=/data/.tagspeech
USER 1000
WORKDIR /data
EXPOSE 8000
ENTRYPOINT ["tagspeech"]
CMD ["--help"]
