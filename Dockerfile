# docker build -t facet . && docker run --rm facet
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/*
WORKDIR /facet
COPY . .
RUN make env
CMD ["make", "repro"]
