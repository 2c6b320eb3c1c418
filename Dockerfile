# docker build -t facet . && docker run --rm facet; another Python: --build-arg PYTHON=3.13
ARG PYTHON=3.11
FROM python:${PYTHON}-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /facet
COPY . .
RUN make env
CMD ["make", "repro"]
