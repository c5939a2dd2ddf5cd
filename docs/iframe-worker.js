// The search runs in a worker, and browsers start none from pages on the disk. There it runs in a
// frame instead; on a server nothing is changed.
if (location.protocol === 'file:') {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement('iframe');
      frame.hidden = true;
      frame.srcdoc = `<script>
        self.postMessage = (data) => parent.postMessage(data, '*');
        self.importScripts = (...urls) => Promise.all(urls.map((src) => new Promise((done, failed) =>
          document.head.append(Object.assign(document.createElement('script'),
            { src, onload: done, onerror: failed })))));
      <\/script><script src="${new URL(url, document.baseURI)}"><\/script>`;
      this.frame = new Promise((done) => { frame.onload = () => done(frame.contentWindow); });
      addEventListener('message', ({ source, data }) => {
        if (source === frame.contentWindow) this.dispatchEvent(new MessageEvent('message', { data }));
      });
      document.documentElement.append(frame);
    }

    postMessage(data) {
      // The window's own method, as the frame's is the one above, which answers.
      this.frame.then((target) => window.postMessage.call(target, data, '*'));
    }
  };
}
