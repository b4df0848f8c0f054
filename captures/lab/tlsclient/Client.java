// One HTTPS request with the JDK's HttpsURLConnection, with nothing special about it.
// java -Djdk.net.hosts.file=HOSTS -Djdk.tls.client.protocols=TLSv1.2 Client NAME PORT CA.pem
import java.io.FileInputStream;
import java.net.URL;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public class Client {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        try (FileInputStream file = new FileInputStream(arguments[2])) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance("PKIX");
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        HttpsURLConnection connection =
            (HttpsURLConnection) new URL("https://" + arguments[0] + ":" + arguments[1] + "/").openConnection();
        connection.setSSLSocketFactory(context.getSocketFactory());
        connection.setConnectTimeout(3000);
        connection.setReadTimeout(5000);
        try {
            int status = connection.getResponseCode();
            connection.getInputStream().readAllBytes();
            System.out.println("java: " + status);
        } catch (Exception error) {
            System.out.println("java: " + error);
        } finally {
            connection.disconnect();
        }
    }
}
